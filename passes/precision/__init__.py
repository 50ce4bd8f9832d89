"""Precision: the dtype that a program computes in, per node, by a table and the user's words."""

from rewright.passes.precision.precision import Precision

__all__ = ["Precision"]
