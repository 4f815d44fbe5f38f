"""A system that compiles in a second."""
