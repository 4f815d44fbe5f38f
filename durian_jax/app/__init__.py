"""The local web page over the Animator."""
