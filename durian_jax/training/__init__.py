"""One loop for every stage and system."""
