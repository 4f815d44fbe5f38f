"""Where an attribute is, and where it would be on another head."""
