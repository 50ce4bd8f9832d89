"""Reinplace: what a program writes to is updated where it is, and not copied."""
