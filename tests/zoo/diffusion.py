"""Diffusion models: U-Nets, autoencoders and diffusion transformers from `diffusers`."""

from __future__ import annotations

from .entry import SDPA, Args, Axis, Diffusers, Entry, Settings, floats, ids, levels, places, steps
from .text import BATCH, SEQ

HEIGHT = Axis("height", at=16, other=24, low=8, high=32, step=8)
WIDTH = Axis("width", at=24, other=16, low=8, high=32, step=8)
PATCHES = Axis("patches", at=16, other=24, low=4, high=64)

LATENT = floats(BATCH, 4, HEIGHT, WIDTH)
IMAGE = floats(BATCH, 3, HEIGHT, WIDTH)
SQUARE = floats(BATCH, 4, 8, 8)
PROMPT = floats(BATCH, SEQ, 32)
POOLED = floats(BATCH, 32)

CONDITIONED: Args = {"sample": LATENT, "timestep": steps(), "encoder_hidden_states": PROMPT}

SMALL: Settings = dict(
    block_out_channels=(16, 32),
    layers_per_block=1,
    norm_num_groups=4,
    attention_head_dim=8,
)
CROSS: Settings = SMALL | dict(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=32
)
UNET: Settings = CROSS | dict(sample_size=16, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
DIT: Settings = dict(
    num_attention_heads=4, attention_head_dim=8, num_layers=2, sample_size=8, patch_size=2
)
DIT_IN_OUT: Settings = DIT | dict(in_channels=4, out_channels=8, norm_num_groups=4)

UNETS = (
    Entry(
        "unet2d",
        "unet",
        Diffusers(
            "UNet2DModel",
            SMALL
            | dict(
                sample_size=16,
                down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            ),
        ),
        {"sample": IMAGE, "timestep": steps(BATCH)},
    ),
    Entry(
        "unet2d_condition",
        "unet",
        Diffusers("UNet2DConditionModel", UNET),
        CONDITIONED,
        quick=True,
    ),
    Entry(
        "unet2d_sdxl",
        "unet",
        Diffusers(
            "UNet2DConditionModel",
            UNET
            | dict(
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=32 + 6 * 8,
                transformer_layers_per_block=2,
                use_linear_projection=True,
            ),
        ),
        {
            **CONDITIONED,
            "added_cond_kwargs": {"text_embeds": POOLED, "time_ids": places(BATCH, 6)},
        },
        notes="a dictionary of tensors as an argument",
    ),
    Entry(
        "controlnet",
        "unet",
        Diffusers("ControlNetModel", CROSS | dict(conditioning_embedding_out_channels=(8, 16))),
        {**CONDITIONED, "controlnet_cond": floats(BATCH, 3, HEIGHT.times(2), WIDTH.times(2))},
        notes="an input of twice another's size; a list of outputs",
    ),
)

AUTOENCODERS = (
    Entry(
        "autoencoder_kl",
        "vae",
        Diffusers(
            "AutoencoderKL",
            dict(
                block_out_channels=(8, 16),
                layers_per_block=1,
                norm_num_groups=4,
                sample_size=16,
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
            ),
        ),
        {"sample": IMAGE},
        quick=True,
        notes="encodes to the mode, then decodes",
    ),
)

DIFFUSION_TRANSFORMERS = (
    Entry(
        "dit",
        "dit",
        Diffusers("DiTTransformer2DModel", DIT_IN_OUT | dict(num_embeds_ada_norm=10)),
        {
            "hidden_states": SQUARE,
            "timestep": steps(BATCH),
            "class_labels": ids(BATCH, low=0, high=10),
        },
    ),
    Entry(
        "pixart",
        "dit",
        Diffusers(
            "PixArtTransformer2DModel",
            DIT_IN_OUT
            | dict(cross_attention_dim=32, caption_channels=32, use_additional_conditions=False),
        ),
        {"hidden_states": SQUARE, "encoder_hidden_states": PROMPT, "timestep": steps(BATCH)},
    ),
    Entry(
        "sd3",
        "dit",
        Diffusers(
            "SD3Transformer2DModel",
            DIT
            | dict(
                in_channels=4,
                out_channels=4,
                joint_attention_dim=32,
                caption_projection_dim=32,
                pooled_projection_dim=32,
                pos_embed_max_size=32,
                qk_norm="rms_norm",
                dual_attention_layers=(0,),
            ),
            SDPA,
        ),
        {
            "hidden_states": LATENT,
            "encoder_hidden_states": PROMPT,
            "pooled_projections": POOLED,
            "timestep": steps(BATCH),
        },
    ),
    Entry(
        "flux",
        "dit",
        Diffusers(
            "FluxTransformer2DModel",
            dict(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                axes_dims_rope=(4, 6, 6),
                guidance_embeds=True,
            ),
            SDPA,
        ),
        {
            "hidden_states": floats(BATCH, PATCHES, 16),
            "encoder_hidden_states": PROMPT,
            "pooled_projections": POOLED,
            "timestep": levels(BATCH),
            "guidance": levels(BATCH),
            "img_ids": places(PATCHES, 3),
            "txt_ids": places(SEQ, 3),
        },
        quick=True,
        notes="rotary embedding in three axes, computed in float64",
    ),
)

ENTRIES = UNETS + AUTOENCODERS + DIFFUSION_TRANSFORMERS
