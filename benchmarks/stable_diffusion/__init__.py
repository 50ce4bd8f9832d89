"""Stable Diffusion end to end: ``python -m benchmarks.stable_diffusion --help``."""
