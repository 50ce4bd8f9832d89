"""Where the windows of convolutions and poolings lie: TensorRT's padding modes."""

from collections.abc import Sequence

from rewright.testing.layer import Layer

__all__ = ["output_size", "paddings", "required"]


def required(layer: Layer, attribute: str) -> tuple[int, ...]:
    """An attribute of type Dims that can't be unset."""
    dims = layer.dims(attribute)
    if dims is None:
        raise layer.refuse(f"it has no {attribute}")
    return dims


def output_size(mode: str, size: int, pre: int, post: int, window: int, stride: int) -> int:
    """How many windows of extent ``window`` (dilation counted) fit along an axis of ``size``.

    EXPLICIT_ROUND_DOWN and _UP divide what the first window leaves by the stride, and round; SAME_*
    have one window for each begun stride of the input, whatever the paddings.
    """
    if mode.startswith("SAME"):
        return -(-size // stride)
    rest = size + pre + post - window
    return (-(-rest // stride) if mode == "EXPLICIT_ROUND_UP" else rest // stride) + 1


def paddings(
    layer: Layer, sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """For each spatial axis, how much is added before and after the input so that the windows cover
    exactly that. Negative amounts cut off what no window reads.

    Formulas: the comment on ``PaddingMode`` in NvInfer.h.
    """
    mode = layer.option("padding_mode")
    out = []
    explicit = zip(required(layer, "pre_padding"), required(layer, "post_padding"), strict=True)
    for (pre, post), size, window, stride in zip(explicit, sizes, windows, strides, strict=True):
        count = output_size(mode, size, pre, post, window, stride)
        total = (count - 1) * stride + window - size
        if mode.startswith("SAME"):
            if total < 0:
                raise layer.refuse(f"{mode} with windows {windows} at strides {strides}")
            # The odd one goes after the input in UPPER, before it in LOWER.
            pre = total // 2 if mode == "SAME_UPPER" else total - total // 2
        out.append((pre, total - pre))
    return out
