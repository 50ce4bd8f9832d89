"""Vision and vision-language models: transformers and convolutional networks."""

from __future__ import annotations

from typing import Any

from .entry import BOTH, EAGER, Args, Attention, Axis, Entry, Settings, Transformers, floats
from .text import BATCH, PADDED, SMALL

IMAGES = Axis("images", at=3, other=4, high=8)
HEIGHT = Axis("height", at=64, other=96, low=32, high=128, step=32)
WIDTH = Axis("width", at=96, other=64, low=32, high=128, step=32)

SQUARE: Args = {"pixel_values": floats(BATCH, 3, 32, 32)}
LARGER: Args = {"pixel_values": floats(BATCH, 3, 128, 128)}
SIZED: Args = {"pixel_values": floats(BATCH, 3, HEIGHT, WIDTH)}

PATCHES: Settings = dict(
    image_size=32,
    patch_size=8,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
)


def vision(
    name: str,
    model: str,
    config: str,
    settings: Settings,
    args: Args = SQUARE,
    attentions: tuple[Attention, ...] = BOTH,
    **facts: Any,
) -> Entry:
    """An entry from `transformers`; `facts` are further fields of `Entry`."""
    return Entry(name, "vision", Transformers(model, config, settings, attentions), args, **facts)


TRANSFORMERS = (
    vision("vit", "ViTForImageClassification", "ViTConfig", PATCHES, quick=True),
    vision("deit", "DeiTModel", "DeiTConfig", PATCHES),
    vision("dinov2", "Dinov2Model", "Dinov2Config", PATCHES | dict(mlp_ratio=2)),
    vision(
        "beit",
        "BeitModel",
        "BeitConfig",
        PATCHES | dict(use_relative_position_bias=True, use_mask_token=False),
        notes="relative position bias, interpolated; writes through views",
    ),
    vision(
        "swin",
        "SwinModel",
        "SwinConfig",
        dict(
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
        ),
        quick=True,
        notes="shifted windows: rolls",
    ),
    vision(
        "segformer",
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        dict(
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[4, 1],
            hidden_sizes=[16, 32],
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[2, 4],
            mlp_ratios=[2, 2],
            decoder_hidden_size=32,
        ),
        SIZED,
        notes="any image size; bilinear upsampling",
    ),
    vision(
        "mobilevit",
        "MobileViTModel",
        "MobileViTConfig",
        dict(
            image_size=128,
            hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 32],
            num_attention_heads=4,
            mlp_ratio=2.0,
        ),
        LARGER,
        EAGER,
    ),
    vision("siglip", "SiglipVisionModel", "SiglipVisionConfig", PATCHES),
    vision(
        "clip",
        "CLIPModel",
        "CLIPConfig",
        dict(
            text_config=SMALL | dict(eos_token_id=98),
            vision_config=PATCHES,
            projection_dim=32,
        ),
        {**PADDED, "pixel_values": floats(IMAGES, 3, 32, 32)},
        quick=True,
        notes="two batch sizes: texts and images",
    ),
)

CONVOLUTIONS = (
    vision(
        "convnext",
        "ConvNextForImageClassification",
        "ConvNextConfig",
        dict(num_stages=3, hidden_sizes=[8, 16, 32], depths=[1, 2, 1]),
        SIZED,
        attentions=(),
        quick=True,
        notes="any image size",
    ),
    vision(
        "resnet",
        "ResNetForImageClassification",
        "ResNetConfig",
        dict(embedding_size=8, hidden_sizes=[16, 32, 32], depths=[1, 2, 1]),
        SIZED,
        attentions=(),
        quick=True,
        notes="any image size; batch norm",
    ),
    vision(
        "regnet",
        "RegNetModel",
        "RegNetConfig",
        dict(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2], groups_width=8),
        SIZED,
        attentions=(),
        notes="any image size; grouped convolutions, squeeze-excite",
    ),
    vision(
        "mobilenet_v2",
        "MobileNetV2Model",
        "MobileNetV2Config",
        dict(image_size=32, depth_multiplier=0.25),
        attentions=(),
    ),
)

ENTRIES = TRANSFORMERS + CONVOLUTIONS
