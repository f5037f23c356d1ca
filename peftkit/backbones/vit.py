"""ViT (Dosovitskiy et al. 2020): an encoder of patches; the head reads the class token."""

from peftkit.backbones._family import Family

FAMILY = Family(
    name="vit",
    model_types=("vit",),
    roles={
        "query": ("attention.q_proj",),
        "key": ("attention.k_proj",),
        "value": ("attention.v_proj",),
        "attention_output": ("attention.o_proj",),
        "mlp_input": ("mlp.fc1",),
        "mlp_output": ("mlp.fc2",),
    },
    inputs="image",
    pooling="first",
    twin={
        "model_type": "vit",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
    },
    twin_processor={"class": "ViTImageProcessorPil", "size": {"height": 32, "width": 32}},
)
