"""Stable Diffusion 1.5 as diffusers runs it, with random weights: nothing is downloaded.

The sizes are those of the published configuration files. The tokenizer knows bytes only, so that it
needs no files; its tokens have the numbers that the model's own vocabulary ends at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import torch

from benchmarks.gpu.models import Place

GUIDANCE: Final = 7.5
PROMPT: Final = "a photograph of an astronaut riding a horse"

_BETAS: Final = dict(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
    set_alpha_to_one=False, steps_offset=1,
)  # fmt: skip

SCHEDULERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "pndm": ("PNDMScheduler", {**_BETAS, "skip_prk_steps": True}),
    "ddim": ("DDIMScheduler", {**_BETAS, "clip_sample": False}),
}
"""diffusers' class and its settings. PNDM is what SD 1.5 comes with; it calls the U-Net once more
than there are steps."""


@attrs.frozen
class Sizes:
    """What the three models are built from.

    Attributes:
        text: arguments of ``CLIPTextConfig``.
        unet: arguments of ``UNet2DConditionModel``.
        vae: arguments of ``AutoencoderKL``.
    """

    text: Mapping[str, Any]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]


FULL: Final = Sizes(
    text=dict(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, max_position_embeddings=77, hidden_act="quick_gelu",
        projection_dim=768, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    ),
    unet=dict(
        sample_size=64, in_channels=4, out_channels=4, cross_attention_dim=768,
        attention_head_dim=8, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280),
    ),
    vae=dict(
        sample_size=512, latent_channels=4, layers_per_block=2,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ),
)  # fmt: skip

TINY: Final = Sizes(
    text=dict(
        vocab_size=49408, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=77, hidden_act="quick_gelu",
        projection_dim=32, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    ),
    unet=dict(
        sample_size=8, in_channels=4, out_channels=4, cross_attention_dim=32,
        attention_head_dim=2, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ),
    vae=dict(
        sample_size=16, latent_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ),
)  # fmt: skip


def build(place: Place, scheduler: str = "pndm") -> Any:
    """A ``StableDiffusionPipeline``, the same weights each time."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    diffusers.logging.set_verbosity_error()
    sizes = TINY if place.tiny else FULL
    name, settings = SCHEDULERS[scheduler]
    torch.manual_seed(0)
    with place.device:
        text = CLIPTextModel(CLIPTextConfig(**sizes.text))
        unet = diffusers.UNet2DConditionModel(**sizes.unet)
        vae = diffusers.AutoencoderKL(**sizes.vae)
    text, unet, vae = map(place.finish, (text, unet, vae))
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text, unet=unet, tokenizer=tokenizer(),
        scheduler=getattr(diffusers, name)(**settings), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tokenizer() -> Any:
    """CLIP's tokenizer over single bytes."""
    from transformers import CLIPTokenizer

    letters = [*map(chr, range(ord("a"), ord("z") + 1))]
    units = [*letters, *(f"{letter}</w>" for letter in letters)]
    words = {unit: number for number, unit in enumerate(units, 320)}
    made = {"<|startoftext|>": 49406, "<|endoftext|>": 49407, **words}
    return CLIPTokenizer(vocab=made, merges=[], model_max_length=77)
