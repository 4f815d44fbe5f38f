"""A system and a solver make latents, then frames, on a set of devices."""
