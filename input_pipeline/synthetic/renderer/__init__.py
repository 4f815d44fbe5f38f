"""Geometry, light and pixels of the people."""
