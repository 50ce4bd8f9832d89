"""Speech models: waveforms or spectrograms in, features or tokens out."""

from __future__ import annotations

from .entry import Args, Axis, Entry, Settings, Transformers, floats, ids
from .text import BATCH, SEQ2SEQ, SMALL, TARGET

SAMPLES = Axis("samples", at=400, other=650, low=200, high=2000, step=10)

WAVE: Args = {"input_values": floats(BATCH, SAMPLES)}
SPECTROGRAM: Args = {"input_features": floats(BATCH, 8, 40)}

SPEECH: Settings = SMALL | dict(
    conv_dim=[16, 16],
    conv_kernel=[10, 3],
    conv_stride=[5, 2],
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)

ENTRIES = (
    Entry(
        "whisper",
        "audio",
        Transformers(
            "WhisperForConditionalGeneration",
            "WhisperConfig",
            SEQ2SEQ | dict(num_mel_bins=8, max_source_positions=20, max_target_positions=64),
        ),
        {**SPECTROGRAM, "decoder_input_ids": ids(BATCH, TARGET)},
    ),
    Entry(
        "wav2vec2",
        "audio",
        Transformers("Wav2Vec2ForCTC", "Wav2Vec2Config", SPEECH),
        WAVE,
        quick=True,
        notes="group norm over time; weight-normalized convolution",
    ),
    Entry(
        "hubert",
        "audio",
        Transformers(
            "HubertModel",
            "HubertConfig",
            SPEECH | dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
        ),
        WAVE,
    ),
)
