"""Which function computes which type of layer."""

from collections.abc import Callable, Mapping

import attrs

from rewright.testing import (
    arrangement,
    attention,
    contraction,
    detection,
    generation,
    pointwise,
    pooling,
    quantization,
    reduction,
    sampling,
)
from rewright.testing.layer import Compute, Layer

__all__ = ["LAYERS", "Entry"]


@attrs.frozen
class Entry:
    """A type of layer.

    Args:
        interface: the name of the binding's class that has its attributes.
        compute: the function that computes it; None where none does.
        reason: why none does.
        inputs_of: from the layer, and the layers by tensor they make, to the layer that has its
            inputs; None for the layer itself.
    """

    interface: str | None
    compute: Compute | None
    reason: str = ""
    inputs_of: Callable[[Layer, Mapping[str, Layer]], Layer] | None = None


def _boundary(interface: str) -> Entry:
    """A layer that a loop or a conditional computes, not a function."""
    return Entry(interface, None, "it is used outside of its loop or conditional")


_PLUGIN = Entry(None, None, "what a plugin computes is not known here")

#: By the name of the member of ``trt.LayerType``.
LAYERS: Mapping[str, Entry] = {
    "ACTIVATION": Entry("IActivationLayer", pointwise.activation),
    "ASSERTION": Entry("IAssertionLayer", detection.assertion),
    "ATTENTION_INPUT": Entry("IAttentionInputLayer", None, "it is used outside of its attention"),
    "ATTENTION_OUTPUT": Entry(
        "IAttentionOutputLayer", attention.attention, inputs_of=attention.input_layer
    ),
    "CAST": Entry("ICastLayer", pointwise.cast),
    "CONCATENATION": Entry("IConcatenationLayer", arrangement.concatenation),
    "CONDITION": _boundary("IConditionLayer"),
    "CONDITIONAL_INPUT": Entry("IIfConditionalInputLayer", pointwise.identity),
    "CONDITIONAL_OUTPUT": _boundary("IIfConditionalOutputLayer"),
    "CONSTANT": Entry("IConstantLayer", generation.constant),
    "CONVOLUTION": Entry("IConvolutionLayer", contraction.convolution),
    "CUMULATIVE": Entry("ICumulativeLayer", reduction.cumulative),
    "DECONVOLUTION": Entry("IDeconvolutionLayer", contraction.deconvolution),
    "DEQUANTIZE": Entry("IDequantizeLayer", quantization.dequantize),
    "DIST_COLLECTIVE": Entry(
        "IDistCollectiveLayer", None, "TensorRT has no way to read its attributes back"
    ),
    "DYNAMIC_QUANTIZE": Entry("IDynamicQuantizeLayer", quantization.dynamic_quantize),
    "EINSUM": Entry("IEinsumLayer", contraction.einsum),
    "ELEMENTWISE": Entry("IElementWiseLayer", pointwise.elementwise),
    "FILL": Entry("IFillLayer", generation.fill),
    "GATHER": Entry("IGatherLayer", arrangement.gather),
    "GRID_SAMPLE": Entry("IGridSampleLayer", sampling.grid_sample),
    "IDENTITY": Entry("IIdentityLayer", pointwise.identity),
    "ITERATOR": _boundary("IIteratorLayer"),
    "KV_CACHE_UPDATE": Entry("IKVCacheUpdateLayer", attention.kv_cache_update),
    "LOOP_OUTPUT": _boundary("ILoopOutputLayer"),
    "LRN": Entry("ILRNLayer", pooling.lrn),
    "MATRIX_MULTIPLY": Entry("IMatrixMultiplyLayer", contraction.matrix_multiply),
    "MOE": Entry("IMoELayer", None, "its weights' layout and its gating are not documented"),
    "NMS": Entry("INMSLayer", detection.nms),
    "NON_ZERO": Entry("INonZeroLayer", arrangement.non_zero),
    "NORMALIZATION": Entry("INormalizationLayer", reduction.normalization),
    "ONE_HOT": Entry("IOneHotLayer", arrangement.one_hot),
    "PADDING": Entry("IPaddingLayer", arrangement.padding),
    "PARAMETRIC_RELU": Entry("IParametricReLULayer", pointwise.parametric_relu),
    "PLUGIN": _PLUGIN,
    "PLUGIN_V2": _PLUGIN,
    "PLUGIN_V3": _PLUGIN,
    "POOLING": Entry("IPoolingLayer", pooling.pooling),
    "QUANTIZE": Entry("IQuantizeLayer", quantization.quantize),
    "RAGGED_SOFTMAX": Entry("IRaggedSoftMaxLayer", reduction.ragged_softmax),
    "RECURRENCE": _boundary("IRecurrenceLayer"),
    "REDUCE": Entry("IReduceLayer", reduction.reduce),
    "RESIZE": Entry("IResizeLayer", sampling.resize),
    "REVERSE_SEQUENCE": Entry("IReverseSequenceLayer", arrangement.reverse_sequence),
    "ROTARY_EMBEDDING": Entry("IRotaryEmbeddingLayer", attention.rotary_embedding),
    "SCALE": Entry("IScaleLayer", pointwise.scale),
    "SCATTER": Entry("IScatterLayer", arrangement.scatter),
    "SELECT": Entry("ISelectLayer", pointwise.select),
    "SHAPE": Entry("IShapeLayer", arrangement.shape),
    "SHUFFLE": Entry("IShuffleLayer", arrangement.shuffle),
    "SLICE": Entry("ISliceLayer", arrangement.slice_),
    "SOFTMAX": Entry("ISoftMaxLayer", reduction.softmax),
    "SQUEEZE": Entry("ISqueezeLayer", arrangement.squeeze),
    "TOPK": Entry("ITopKLayer", reduction.topk),
    "TRIP_LIMIT": _boundary("ITripLimitLayer"),
    "UNARY": Entry("IUnaryLayer", pointwise.unary),
    "UNSQUEEZE": Entry("IUnsqueezeLayer", arrangement.unsqueeze),
}
