"""Stable Video-Driven Portraits: Stable Diffusion 3.5's transformer, token groups and history."""
