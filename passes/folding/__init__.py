"""Constant folding: what depends on constants alone is computed once, when a program is bound."""
