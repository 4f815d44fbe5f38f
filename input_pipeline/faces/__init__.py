"""One face: found, followed, cropped, posed, recognised, drawn."""
