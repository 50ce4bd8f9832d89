"""Decomposition: ops in terms of simpler ones, by torch's own definitions."""
