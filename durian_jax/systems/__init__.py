"""What a method is made of: one folder each, the only place that knows its name."""
