"""A driver's motion on another face."""
