"""Canonicalization: one way to write what can be written in many, and less of it."""
