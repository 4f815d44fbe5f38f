"""Photos and a clip to the batch of one animation, and the square back into the photo."""
