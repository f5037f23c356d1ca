"""Whisper's encoder (Radford et al. 2022): a spectrogram of fixed length; the head reads the mean.

The published encoder reads 30 s, whatever the sound: shorter ones are padded with silence, which
has no mask and is part of the mean. For short sounds nearly all work would go into silence, so the
encoder is shortened here to what the task reads (`max_seconds`): the first rows of its positions,
fixed sinusoids that do not depend on their number, are kept as they are. What a shortened encoder
lacks is the silence behind: less to attend to, and less of it in the mean.
"""

from __future__ import annotations

import math
from typing import Any

from peftkit.backbones._family import Family


def shorten(model: Any, processor: Any, seconds: float) -> None:
    """Make the encoder of `model` read `seconds` (rounded up to a position) instead of 30 s."""
    from torch import nn

    encoder = model.encoder
    whole = encoder.embed_positions
    samples = processor.hop_length * encoder.conv1.stride[0] * encoder.conv2.stride[0]
    positions = math.ceil(round(seconds * processor.sampling_rate / samples, 6))
    if positions >= whole.num_embeddings:
        return
    first = whole.weight[:positions].detach().clone()
    encoder.embed_positions = nn.Embedding.from_pretrained(first, freeze=True)
    encoder.max_source_positions = model.config.max_source_positions = positions


FAMILY = Family(
    name="whisper",
    model_types=("whisper",),
    roles={
        "query": ("self_attn.q_proj",),
        "key": ("self_attn.k_proj",),
        "value": ("self_attn.v_proj",),
        "attention_output": ("self_attn.out_proj",),
        "mlp_input": ("fc1",),
        "mlp_output": ("fc2",),
    },
    blocks=r"encoder\.layers\.\d+",
    inputs="audio",
    pooling="mean",
    fixed=("encoder.embed_positions.weight",),
    shorten=shorten,
    twin={
        "model_type": "whisper",
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_layers": 1,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 64,
        "max_source_positions": 50,
        "num_mel_bins": 16,
        "classifier_proj_size": 16,
        "vocab_size": 8,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "begin_suppress_tokens": None,
    },
    twin_processor={"class": "WhisperFeatureExtractor", "feature_size": 16, "chunk_length": 1},
)
