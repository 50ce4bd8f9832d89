"""Kernels of our own, and of libraries that torch has no op for: each with a reference."""
