"""The networks of ``rewright demo``: four kinds, small enough to compile in seconds.

Weights are random and seeded; nothing is downloaded. The residual network is plain torch, the
others are built from the configurations of transformers and diffusers, which are imported only
when such a model is built.
"""

import math
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.export import Dim

__all__ = ["MODELS", "DemoModel", "ResNet"]

SEED = 0
VOCABULARY = 512

Shapes = tuple[dict[int, Any] | None, ...]


@attrs.frozen
class DemoModel:
    """A network: how to build it, positional example inputs, and which of their sizes may vary.

    ``dynamic_shapes`` is as :func:`torch.export.export` takes it. ``build`` returns the model in
    eval mode, in float32 on the CPU, and raises ImportError, saying what to install, where its
    library is missing.
    """

    name: str
    summary: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    dynamic_shapes: Shapes


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, beside a shortcut: [n, c, h, w] to [n, d, h/s, w/s]."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y))
        result: Tensor = (y + self.shortcut(x)).relu()
        return result


class ResNet(nn.Module):
    """A residual network: images [n, 3, h, w] to the scores [n, classes]."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = (first, *widths)
        self.blocks = nn.Sequential(
            *(Block(a, b, 1 if a == b else 2) for a, b in zip(channels, widths, strict=False))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of each class."""
        scores: Tensor = self.classify(self.pool(self.blocks(self.stem(x))).flatten(1))
        return scores


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this model is built by {name}, which can't be imported ({error}): "
            "pip install 'rewright[bench]'",
            name=name,
        ) from error


def _seeded(model: nn.Module) -> nn.Module:
    """Draw weights such that every part of the model matters; the result is in eval mode.

    Matrices have variance 1/fan-in; scales and variances are 1, biases and means 0, with noise.
    """
    rng = torch.Generator().manual_seed(SEED)
    statistics = [(name, buffer) for name, buffer in model.named_buffers() if "running_" in name]
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *statistics]:
            noise = torch.randn(tensor.shape, generator=rng)
            if tensor.ndim > 1:
                tensor.copy_(noise / math.sqrt(tensor[0].numel()))
            else:
                center = 0.0 if name.endswith(("bias", "running_mean")) else 1.0
                tensor.copy_(center + 0.1 * noise)
    return model.eval()


def _resnet() -> nn.Module:
    return _seeded(ResNet())


def _bert() -> nn.Module:
    library = _library("transformers")
    config = library.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
    )
    return _seeded(library.BertModel(config))


def _llama() -> nn.Module:
    library = _library("transformers")
    config = library.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=128,
        use_cache=False,
    )
    return _seeded(library.LlamaForCausalLM(config))


def _unet() -> nn.Module:
    unet = _library("diffusers").UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    return _seeded(unet)


def _floats(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED))


def _tokens(*shape: int) -> Tensor:
    return torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(SEED))


def _padding(batch: int, tokens: int, padded: int) -> Tensor:
    """An attention mask, int64, whose last row ends in padding."""
    mask = torch.ones(batch, tokens, dtype=torch.int64)
    mask[-1, tokens - padded :] = 0
    return mask


BATCH = Dim("batch", min=1, max=8)
TOKENS = Dim("tokens", min=8, max=128)

MODELS = {
    model.name: model
    for model in (
        DemoModel(
            "resnet",
            "a residual network with batch norm",
            build=_resnet,
            inputs=lambda: (_floats(2, 3, 64, 64),),
            dynamic_shapes=({0: BATCH},),
        ),
        DemoModel(
            "bert",
            "an encoder with a padding mask",
            build=_bert,
            inputs=lambda: (_tokens(2, 32), _padding(2, 32, padded=6)),
            dynamic_shapes=({0: BATCH, 1: TOKENS}, {0: BATCH, 1: TOKENS}),
        ),
        DemoModel(
            "llama",
            "a decoder: rotary embedding, grouped-query attention, gated MLP",
            build=_llama,
            inputs=lambda: (_tokens(2, 32),),
            dynamic_shapes=({0: BATCH, 1: TOKENS},),
        ),
        DemoModel(
            "unet",
            "a diffusion U-Net conditioned on a prompt",
            build=_unet,
            inputs=lambda: (_floats(2, 4, 16, 16), torch.tensor(500), _floats(2, 12, 64)),
            dynamic_shapes=({0: BATCH}, None, {0: BATCH}),
        ),
    )
}
