"""GPT-2 (Radford et al. 2019): decoder whose linear layers are `Conv1D`, q, k and v in one."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    roles={
        "query": ("attn.c_attn",),
        "key": ("attn.c_attn",),
        "value": ("attn.c_attn",),
        "attention_output": ("attn.c_proj",),
        "mlp_input": ("mlp.c_fc",),
        "mlp_output": ("mlp.c_proj",),
    },
    pooling="last",
    twin={"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
)
