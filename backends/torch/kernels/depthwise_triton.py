"""The Triton kernel of depthwise convolutions; importing this module imports triton.

A thread has eight channels (four, with more warps) of one pixel in `ROWS` rows of the result, so
that a line of the image is read once for all of them. The taps of one column of the kernel are in
registers while the lines go by. Columns are a loop and not unrolled: unrolled, 7 x 7 takes ten
times as long to compile.
"""

import triton
import triton.language as tl


@triton.jit
def _column(
    sums,
    image,
    origin,
    inside,
    first,
    height,
    row,
    taps,
    c,
    channels,
    KH: tl.constexpr,
    ROWS: tl.constexpr,
    STRIDE: tl.constexpr,
    NEXT_TAP,
    NEXT_CHANNEL: tl.constexpr,
):
    """`sums` and what one column of the kernel adds to them."""
    has = c < channels
    weights = ()
    for kh in tl.static_range(KH):
        tap = tl.load(taps + kh * NEXT_TAP + c * NEXT_CHANNEL, mask=has, other=0.0)
        weights += (tap.to(tl.float32)[None, :],)  # type: ignore[assignment]
    for line in tl.static_range((ROWS - 1) * STRIDE + KH):
        at = first + line
        seen = inside & (at >= 0) & (at < height)
        pixel = tl.load(image + line * row + origin, mask=seen[:, None] & has[None, :], other=0.0)
        pixel = pixel.to(tl.float32)
        added = ()
        for j in tl.static_range(ROWS):
            if (line >= j * STRIDE) and (line < j * STRIDE + KH):
                added += (sums[j] + pixel * weights[line - j * STRIDE],)  # type: ignore[assignment]
            else:
                added += (sums[j],)  # type: ignore[assignment]
        sums = added
    return sums


_SIZES = ["height", "width", "out_height", "out_width", "eighths", "places", "pad_h", "pad_w"]


@triton.jit(do_not_specialize=_SIZES)
def convolve(
    image,
    weight,
    bias,
    result,
    height,
    width,
    out_height,
    out_width,
    eighths,
    places,
    pad_h,
    pad_w,
    KH: tl.constexpr,
    KW: tl.constexpr,
    STRIDE: tl.constexpr,
    IS_INNERMOST: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A depthwise convolution in channels-last memory.

    Args:
        image: ``[n, height, width, channels]``.
        weight: ``[KH, KW, channels]`` if `IS_INNERMOST`, else ``[channels, KH, KW]``.
        bias: ``[channels]``, if `HAS_BIAS`.
        result: ``[n, out_height, out_width, channels]``.
        height: of the image; so the other sizes.
        width: of the image.
        out_height: of the result.
        out_width: of the result.
        eighths: the channels by 8: the compiler has to know that they are a multiple of it.
        places: ``n * cdiv(out_height, ROWS) * out_width``: what all programs together compute.
        pad_h: zeros above and below.
        pad_w: zeros to both sides.
        KH: lines of the kernel.
        KW: columns of the kernel.
        STRIDE: of both dimensions.
        IS_INNERMOST: the order of the weight.
        HAS_BIAS: whether there is a bias.
        RELU: whether negative results become 0.
        ROWS: so many rows of the result are one thread's.
        PIXELS: so many places are one program's,
        CHANNELS: of so many channels.
    """
    channels = eighths * 8
    row = width * channels
    place = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    has = c < channels
    strips = tl.cdiv(out_height, ROWS)
    column = place % out_width
    strip = place // out_width
    top = strip % strips * ROWS
    number = strip // strips
    left = column * STRIDE - pad_w
    first = top * STRIDE - pad_h
    origin = ((number * height + first) * width + left)[:, None] * channels + c[None, :]
    start = tl.zeros((PIXELS, CHANNELS), tl.float32)
    if HAS_BIAS:
        start += tl.load(bias + c, mask=has, other=0.0).to(tl.float32)[None, :]
    sums = (start,) * ROWS
    NEXT_CHANNEL: tl.constexpr = 1 if IS_INNERMOST else KH * KW
    next_column = channels if IS_INNERMOST else 1
    for kw in tl.range(KW):
        inside = (place < places) & (left + kw >= 0) & (left + kw < width)
        sums = _column(
            sums,
            image + kw * channels,
            origin,
            inside,
            first,
            height,
            row,
            weight + kw * next_column,
            c,
            channels,
            KH,
            ROWS,
            STRIDE,
            KW * next_column,
            NEXT_CHANNEL,
        )
    for j in tl.static_range(ROWS):
        made = tl.maximum(sums[j], 0.0, propagate_nan=tl.PropagateNan.ALL) if RELU else sums[j]
        to = ((number * out_height + top + j) * out_width + column)[:, None] * channels + c[None, :]
        kept = (place < places) & (top + j < out_height)
        tl.store(result + to, made.to(result.dtype.element_ty), mask=kept[:, None] & has[None, :])
