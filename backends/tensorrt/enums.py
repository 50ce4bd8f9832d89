"""The members of TensorRT's enums that are used here, by TensorRT's own names.

They stand for TensorRT's before it is imported: in tables, capabilities and documents. Their
numbers mean nothing (TensorRT's moved between versions); ``Library.enum`` gives the real ones.
"""

from __future__ import annotations

import enum


class Name(enum.Enum):
    """A member of the TensorRT enum that is called like the class."""


class ActivationType(Name):
    """Functions of one number, some with two constants."""

    RELU = enum.auto()
    SIGMOID = enum.auto()
    TANH = enum.auto()
    LEAKY_RELU = enum.auto()
    ELU = enum.auto()
    SELU = enum.auto()
    SOFTSIGN = enum.auto()
    SOFTPLUS = enum.auto()
    CLIP = enum.auto()
    HARD_SIGMOID = enum.auto()
    THRESHOLDED_RELU = enum.auto()
    GELU_ERF = enum.auto()
    GELU_TANH = enum.auto()


class AttentionNormalizationOp(Name):
    """What an attention does to its scores."""

    SOFTMAX = enum.auto()


class CausalMaskKind(Name):
    """Where the triangle of a causal mask starts."""

    NONE = enum.auto()
    UPPER_LEFT = enum.auto()


class CumulativeOperation(Name):
    """What a cumulative layer does."""

    SUM = enum.auto()


class ElementWiseOperation(Name):
    """Functions of two numbers."""

    SUM = enum.auto()
    PROD = enum.auto()
    MAX = enum.auto()
    MIN = enum.auto()
    SUB = enum.auto()
    DIV = enum.auto()
    POW = enum.auto()
    FLOOR_DIV = enum.auto()
    AND = enum.auto()
    OR = enum.auto()
    XOR = enum.auto()
    EQUAL = enum.auto()
    GREATER = enum.auto()
    LESS = enum.auto()


class FillOperation(Name):
    """What a fill layer fills with."""

    LINSPACE = enum.auto()


class GatherMode(Name):
    """How indices address data: an axis, an element each, or several axes at once."""

    DEFAULT = enum.auto()
    ELEMENT = enum.auto()
    ND = enum.auto()


class InterpolationMode(Name):
    """How a resize or a grid sample reads between elements."""

    NEAREST = enum.auto()
    LINEAR = enum.auto()
    CUBIC = enum.auto()


class LoopOutput(Name):
    """What leaves a loop."""

    LAST_VALUE = enum.auto()
    CONCATENATE = enum.auto()


class MatrixOperation(Name):
    """What a matrix product does to an operand first."""

    NONE = enum.auto()
    TRANSPOSE = enum.auto()


class MemoryPoolType(Name):
    """A memory that a build may be limited in."""

    WORKSPACE = enum.auto()


class NetworkDefinitionCreationFlag(Name):
    """What a network is made with."""

    STRONGLY_TYPED = enum.auto()


class PoolingType(Name):
    """What pooling does with a window."""

    MAX = enum.auto()
    AVERAGE = enum.auto()


class ProfilingVerbosity(Name):
    """How much an engine tells of its layers."""

    LAYER_NAMES_ONLY = enum.auto()
    DETAILED = enum.auto()


class ReduceOperation(Name):
    """How a reduction combines elements."""

    SUM = enum.auto()
    PROD = enum.auto()
    MAX = enum.auto()
    MIN = enum.auto()
    AVG = enum.auto()


class ResizeCoordinateTransformation(Name):
    """Which source coordinate a resized element has."""

    ALIGN_CORNERS = enum.auto()
    ASYMMETRIC = enum.auto()
    HALF_PIXEL = enum.auto()


class ResizeRoundMode(Name):
    """Which neighbour a nearest resize takes."""

    HALF_DOWN = enum.auto()
    FLOOR = enum.auto()


class SampleMode(Name):
    """What is read outside of a tensor."""

    STRICT_BOUNDS = enum.auto()
    WRAP = enum.auto()
    CLAMP = enum.auto()
    FILL = enum.auto()
    REFLECT = enum.auto()


class ScatterMode(Name):
    """How indices address data that is written."""

    ELEMENT = enum.auto()
    ND = enum.auto()


class TopKOperation(Name):
    """Which elements a top-k takes."""

    MAX = enum.auto()
    MIN = enum.auto()


class TripLimit(Name):
    """What ends a loop."""

    COUNT = enum.auto()
    WHILE = enum.auto()


class UnaryOperation(Name):
    """Functions of one number."""

    EXP = enum.auto()
    LOG = enum.auto()
    SQRT = enum.auto()
    RECIP = enum.auto()
    ABS = enum.auto()
    NEG = enum.auto()
    SIN = enum.auto()
    COS = enum.auto()
    TAN = enum.auto()
    SINH = enum.auto()
    COSH = enum.auto()
    ASIN = enum.auto()
    ACOS = enum.auto()
    ATAN = enum.auto()
    ASINH = enum.auto()
    ACOSH = enum.auto()
    ATANH = enum.auto()
    CEIL = enum.auto()
    FLOOR = enum.auto()
    ERF = enum.auto()
    NOT = enum.auto()
    SIGN = enum.auto()
    ROUND = enum.auto()
    ISINF = enum.auto()
    ISNAN = enum.auto()
