"""Clips to data set, restartable."""
