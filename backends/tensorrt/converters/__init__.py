"""The converters, by family: each module declares its own, and nothing else knows their names."""
