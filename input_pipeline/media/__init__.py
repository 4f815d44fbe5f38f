"""Clips, pictures and sound."""
