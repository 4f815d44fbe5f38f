"""Durian: dual reference networks."""
