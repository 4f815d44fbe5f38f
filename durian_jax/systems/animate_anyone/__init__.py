"""Animate Anyone: a single reference network."""
