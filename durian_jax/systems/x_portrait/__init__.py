"""X-Portrait: a reference network, and pictures of the driver for control."""
