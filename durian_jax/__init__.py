"""Durian in JAX: portrait animation with attribute transfer (arXiv 2509.04434)."""
