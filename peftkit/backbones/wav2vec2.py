"""wav2vec 2.0 (Baevski et al. 2020) and HuBERT: convolutions over the waveform, then an encoder.

The head projects each frame and reads the mean. Two kinds of checkpoints differ in their first
layers: where these normalise over time (`feat_extract_norm="group"`, as wav2vec2-base), padding
takes part in every frame, and the checkpoints want zeros without a mask; where they normalise each
frame ("layer"), padding is masked. In checkpoints with `do_stable_layer_norm` the encoder's own
LayerNorm follows the last block; `last_layers` leaves it frozen. WavLM is no member: it hands its
attention weights to one function, past any adapter that would wrap their layers.
"""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="wav2vec2",
    model_types=("wav2vec2", "hubert"),
    roles={
        "query": ("attention.q_proj",),
        "key": ("attention.k_proj",),
        "value": ("attention.v_proj",),
        "attention_output": ("attention.out_proj",),
        "mlp_input": ("feed_forward.intermediate_dense",),
        "mlp_output": ("feed_forward.output_dense",),
    },
    blocks=r"encoder\.layers\.\d+",
    inputs="audio",
    pooling="mean",
    fixed=("masked_spec_embed",),  # stands for frames that nothing hides here
    twin={
        "model_type": "wav2vec2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "conv_dim": [16, 16, 16],
        "conv_kernel": [10, 4, 2],
        "conv_stride": [5, 4, 2],
        "num_feat_extract_layers": 3,
        "feat_extract_norm": "layer",
        "conv_bias": True,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "classifier_proj_size": 16,
        "layerdrop": 0.0,
    },
    twin_processor={
        "class": "Wav2Vec2FeatureExtractor",
        "sampling_rate": 4000,
        "return_attention_mask": True,
    },
)
