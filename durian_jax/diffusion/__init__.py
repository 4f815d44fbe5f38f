"""Noise processes and windows: mathematics without a model."""
