"""Other people's formats, one small module each."""
