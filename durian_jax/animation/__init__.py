"""Jobs in, video files out."""
