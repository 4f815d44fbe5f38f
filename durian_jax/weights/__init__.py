"""Parameters on disk and from the hub, ready to use."""
