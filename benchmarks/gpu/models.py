"""The models of the GPU benchmark, with random weights: nothing is downloaded.

Each is a :class:`Case`: how to build it on a device, and how to make inputs. All return one tensor.
``tiny`` builds one layer of everything, to try the benchmark itself on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import torch
from torch import Tensor, nn

Inputs = dict[str, Any]


@attrs.frozen
class Place:
    """Where and in what a model is built.

    Attributes:
        device: the device.
        dtype: of its floating-point weights and inputs.
        tiny: whether to build the smallest model of the kind.
    """

    device: torch.device
    dtype: torch.dtype = torch.float16
    tiny: bool = False

    def finish(self, module: nn.Module) -> nn.Module:
        """`module`, ready for inference here."""
        return module.eval().requires_grad_(False).to(self.device, self.dtype)

    def floats(self, *shape: int) -> Tensor:
        """Random numbers."""
        return torch.randn(shape, device=self.device).to(self.dtype)

    def tokens(self, below: int, *shape: int) -> Tensor:
        """Random token numbers."""
        return torch.randint(0, below, shape, device=self.device)


@attrs.frozen
class Case:
    """A model and its inputs.

    Attributes:
        name: of the row.
        build: makes the model.
        inputs: makes keyword arguments; other numbers in each call.
        library: the package that the model comes from.
        before: is called with the model before a series of calls; resets a state.
        most: the most calls in such a series; None: any number.
        not_exported: why the model is not exported, if so.
    """

    name: str
    build: Callable[[Place], nn.Module]
    inputs: Callable[[Place], Inputs]
    library: str = "transformers"
    before: Callable[[nn.Module], None] | None = None
    most: int | None = None
    not_exported: str | None = None

    def is_here(self) -> str | None:
        """None, or why the case can't be built here."""
        try:
            __import__(self.library)
        except ImportError as error:
            return f"{self.name} needs {self.library}: pip install {self.library} ({error})"
        return None


class Only(nn.Module):
    """A model that returns one of its results."""

    def __init__(self, inner: nn.Module, result: str | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.result = result

    def forward(self, **given: Any) -> Tensor:
        """The result."""
        found = self.inner(**given)
        return found if self.result is None else getattr(found, self.result)


# --------------------------------------------------------------------------- vision


def _resnet(place: Place) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    small = {"depths": [1], "hidden_sizes": [16], "embedding_size": 8} if place.tiny else {}
    with place.device:
        return place.finish(Only(ResNetForImageClassification(ResNetConfig(**small)), "logits"))


def _timm(name: str, **tiny: Any) -> Callable[[Place], nn.Module]:
    def build(place: Place) -> nn.Module:
        import timm

        with place.device:
            made = timm.create_model(name, pretrained=False, **(tiny if place.tiny else {}))
        return place.finish(Named(made))

    return build


class Named(nn.Module):
    """An image model whose argument is called ``pixel_values``, as in transformers."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixel_values: Tensor) -> Tensor:
        """The logits."""
        return self.inner(pixel_values)


def _images(batch: int) -> Callable[[Place], Inputs]:
    def make(place: Place) -> Inputs:
        side = 32 if place.tiny else 224
        return {"pixel_values": place.floats(min(batch, 2) if place.tiny else batch, 3, side, side)}

    return make


# --------------------------------------------------------------------------- text


def _bert(place: Place) -> nn.Module:
    from transformers import BertConfig, BertModel

    small = dict(
        num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=64,
        vocab_size=128,
    ) if place.tiny else {}  # fmt: skip
    with place.device:
        made = BertModel(BertConfig(**small), add_pooling_layer=False)
    return place.finish(Only(made, "last_hidden_state"))


def _sentences(batch: int, length: int) -> Callable[[Place], Inputs]:
    def make(place: Place) -> Inputs:
        shape = (2, 16) if place.tiny else (batch, length)
        ids = place.tokens(100, *shape)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}  # as tokenizers give it

    return make


def _llama_config(tiny: bool) -> Any:
    from transformers import LlamaConfig

    if tiny:
        return LlamaConfig(
            num_hidden_layers=1, hidden_size=32, num_attention_heads=2, num_key_value_heads=1,
            intermediate_size=64, vocab_size=128, max_position_embeddings=256,
        )  # fmt: skip
    return LlamaConfig(
        num_hidden_layers=16, hidden_size=2048, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=8192, vocab_size=128256, max_position_embeddings=4096,
        tie_word_embeddings=True,
    )  # fmt: skip


class Prefill(nn.Module):
    """A prompt through the model; the logits of its last token, as generation asks for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """The logits."""
        return self.model(input_ids=input_ids, use_cache=False, logits_to_keep=1).logits


def _prefill(place: Place) -> nn.Module:
    from transformers import LlamaForCausalLM

    with place.device:
        return place.finish(Prefill(LlamaForCausalLM(_llama_config(place.tiny))))


def _prompt(place: Place) -> Inputs:
    return {"input_ids": place.tokens(100, 1, 16 if place.tiny else 512)}


class Decode(nn.Module):
    """One token through the model with transformers' static cache, which moves on by one."""

    def __init__(self, model: nn.Module, config: Any, place: Place, length: int) -> None:
        super().__init__()
        from transformers import StaticCache

        self.model = model
        self.start = length // 2
        self.cache = StaticCache(config=config, max_cache_len=length)
        heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
        self.cache.early_initialization(1, heads, size, place.dtype, place.device)
        for number, layer in enumerate(self.cache.layers):
            layer.keys.normal_(std=0.5)
            layer.values.normal_(std=0.5)
            self.register_buffer(f"keys_{number}", layer.keys, persistent=False)
            self.register_buffer(f"values_{number}", layer.values, persistent=False)
        self.rewind()

    def rewind(self) -> None:
        """Half of the cache is full again."""
        for layer in self.cache.layers:
            if isinstance(getattr(layer, "cumulative_length", None), Tensor):
                layer.cumulative_length.fill_(self.start)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """The logits."""
        return self.model(
            input_ids=input_ids, position_ids=position_ids, past_key_values=self.cache,
            use_cache=True,
        ).logits  # fmt: skip


def _decode(place: Place) -> nn.Module:
    from transformers import LlamaForCausalLM

    config = _llama_config(place.tiny)
    with place.device:
        model = place.finish(LlamaForCausalLM(config))
        return Decode(model, config, place, 128 if place.tiny else 1024).eval()


def _token(place: Place) -> Inputs:
    at = 64 if place.tiny else 512
    position = torch.full((1, 1), at, device=place.device)
    return {"input_ids": place.tokens(100, 1, 1), "position_ids": position}


def _rewind(module: nn.Module) -> None:
    module.rewind()  # type: ignore[operator]


# --------------------------------------------------------------------------- others


def _unet(place: Place) -> nn.Module:
    from diffusers import UNet2DConditionModel

    small: dict[str, Any] = dict(
        layers_per_block=1, block_out_channels=(32, 64), cross_attention_dim=32, sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=8,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    full: dict[str, Any] = dict(cross_attention_dim=768, sample_size=64, attention_head_dim=8)
    with place.device:
        made = UNet2DConditionModel(**(small if place.tiny else full))
    return place.finish(Only(made, "sample"))


def _latents(place: Place) -> Inputs:
    side, width = (8, 32) if place.tiny else (64, 768)
    return {
        "sample": place.floats(2, 4, side, side),
        "timestep": torch.tensor(981, device=place.device),
        "encoder_hidden_states": place.floats(2, 77, width),
    }


def _whisper(place: Place) -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    size: dict[str, Any] = dict(
        d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048
    )
    if place.tiny:
        size = dict(
            d_model=32, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=64,
            max_source_positions=50,
        )  # fmt: skip
    with place.device:
        made = WhisperEncoder(WhisperConfig(**size))
    return place.finish(Only(made, "last_hidden_state"))


def _sound(place: Place) -> Inputs:
    return {"input_features": place.floats(1, 80, 100 if place.tiny else 3000)}


_TINY_VIT: Final = dict(depth=1, embed_dim=32, num_heads=2, img_size=32, num_classes=10)
_TINY_SWIN: Final = dict(img_size=32, depths=(1,), num_heads=(2,), embed_dim=16, window_size=2)
_TINY_CONVNEXT: Final = dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), num_classes=10)

_vit = _timm("vit_base_patch16_224", **_TINY_VIT)

_OWN_CACHE: Final = "a loaded program has a cache of its own, which nobody can rewind from outside"

CASES: Final[Mapping[str, Case]] = {
    case.name: case
    for case in (
        Case("resnet50-b1", _resnet, _images(1)),
        Case("resnet50-b32", _resnet, _images(32)),
        Case("bert-b1x128", _bert, _sentences(1, 128)),
        Case("bert-b32x128", _bert, _sentences(32, 128)),
        Case("vit-b1", _vit, _images(1), library="timm"),
        Case("vit-b32", _vit, _images(32), library="timm"),
        Case("sd15-unet", _unet, _latents, library="diffusers"),
        Case("llama1b-prefill", _prefill, _prompt),
        Case("llama1b-decode", _decode, _token, before=_rewind, most=50, not_exported=_OWN_CACHE),
        Case(
            "convnext-b1", _timm("convnext_base", **_TINY_CONVNEXT), _images(1), library="timm"
        ),
        Case(
            "swin-b8", _timm("swin_base_patch4_window7_224", **_TINY_SWIN), _images(8),
            library="timm",
        ),
        Case("whisper-encoder-b1", _whisper, _sound),
    )
}  # fmt: skip
"""All of them, by name."""


def widened(inputs: Inputs) -> Inputs:
    """The inputs with floats in float32, for a reference."""
    return {
        name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }
