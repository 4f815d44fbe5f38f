"""Noise processes, solvers and windows: mathematics without a model."""
