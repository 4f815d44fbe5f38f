"""What a step will need, before it runs; nobody but the command line imports it."""
