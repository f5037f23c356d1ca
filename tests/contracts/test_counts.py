"""Every method trains as many parameters as its closed form says, on every family.

A new method is tested once its closed form is added here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from cells import ATTACHED, ENCODER_DECODERS, Start, pairs

pytestmark = pytest.mark.usefixtures("libraries")


@pairs(ATTACHED)
def test_trains_as_many_parameters_as_its_closed_form_says(
    start: Callable[..., Start], method: str, family: str
) -> None:
    begun = start(method, family)
    counted = begun.bench.parameters(begun.model)

    assert HEADS[family] == counted.head
    assert sum(p.numel() for p in begun.trainable().values()) == counted.head + counted.method
    if method in CLOSED_FORMS:
        assert CLOSED_FORMS[method](family, begun.bare) == counted.method


# Twins: width 32, 2 blocks, inner width 64 (GPT-2: 128), keys and values of Llama 16 wide.
D, L, RANK, M, PROMPT = 32, 2, 8, 32 // 16, 10
_BERT_SHAPES = 4 * [(D, D)] + [(D, 64), (64, D)]
_LLAMA_SHAPES = [(D, D), (D, 16), (D, 16), (D, D), (D, 64), (D, 64), (64, D)]
# The linear layers of a block, in and out.
SHAPES = {
    **dict.fromkeys(
        ("albert", "bert", "deberta_v2", "distilbert", "electra", "phi", "roberta"), _BERT_SHAPES
    ),
    **dict.fromkeys(("llama", "mistral", "qwen"), _LLAMA_SHAPES),
    "gemma": [(D, D), (D, 8), (D, 8), (D, D), (D, 64), (D, 64), (64, D)],
    "gpt2": [(D, 3 * D), (D, D), (D, 128), (128, D)],
    "modernbert": [(D, 3 * D), (D, D), (D, 128), (64, D)],
    # A block of the encoder and one of the decoder, which attends twice.
    "bart": 12 * [(D, D)] + 2 * [(D, 64), (64, D)],
    "t5": 12 * [(D, D)] + 2 * [(D, 64), (D, 64), (64, D)],
}
# Blocks that have weights of their own: ALBERT's is one, used twice.
BLOCKS = {family: 1 if family == "albert" else L for family in SHAPES}
_BERT_BLOCK = 4 * D + D + 64 + D + D  # q k v o, norm, up, down, norm
BIASES = {
    "bert": D + L * _BERT_BLOCK + D,  # embeddings first, the pooler last
    "roberta": D + L * _BERT_BLOCK,
    "distilbert": D + L * _BERT_BLOCK,
    "electra": 16 + D + L * _BERT_BLOCK,  # embeddings are 16 wide, and projected
    "albert": 16 + D + _BERT_BLOCK + D,
    "deberta_v2": D + L * (_BERT_BLOCK + 2 * D),  # positions have their own query and key
    "gpt2": L * (D + 3 * D + D + D + 128 + D) + D,
    "qwen": L * (D + 16 + 16),
    "phi": L * (4 * D + 64 + D + D) + D,
    "bart": 2 * D + L * (_BERT_BLOCK + _BERT_BLOCK + 4 * D + D),
}
_DENSE_HEAD = D * D + D + D * 3 + 3
HEADS = {
    **dict.fromkeys(("albert", "bert"), D * 3 + 3),
    **dict.fromkeys(("bart", "deberta_v2", "distilbert", "electra", "roberta", "t5"), _DENSE_HEAD),
    **dict.fromkeys(("gemma", "gpt2", "llama", "mistral", "phi", "qwen"), D * 3),
    "modernbert": D * D + D + D * 3 + 3,  # a norm without bias instead of a bias
}
# Numbers in normalisation layers: gain and bias, or gain alone.
NORMS = {
    **dict.fromkeys(("bert", "deberta_v2", "distilbert", "roberta"), 2 * D + L * 4 * D),
    "electra": 2 * 16 + L * 4 * D,
    "albert": 2 * 16 + 4 * D,
    "gpt2": L * 4 * D + 2 * D,
    "phi": L * 2 * D + 2 * D,
    **dict.fromkeys(("gemma", "llama", "mistral", "qwen"), L * 2 * D + D),
    "modernbert": D + (2 * L - 1) * D + D,  # the first block has no norm before attention
    "bart": 2 * 2 * D + L * (4 * D + 6 * D),
    "t5": L * (2 * D + 3 * D) + 2 * D,
}
# Outputs of the key and value projections, and inputs of the MLP's last: what IA3 scales.
SCALED = {
    **dict.fromkeys(SHAPES, 2 * D + 64),
    **dict.fromkeys(("llama", "mistral", "qwen"), 2 * 16 + 64),
    "gemma": 2 * 8 + 64,
    "gpt2": 3 * D + 128,
    "modernbert": 3 * D + 64,
    **dict.fromkeys(("bart", "t5"), 3 * 2 * D + 2 * 64),
}


EMBEDDED = {family: 16 if family in ("albert", "electra") else D for family in SHAPES}
KEYS = {**dict.fromkeys(SHAPES, D), "llama": 16, "mistral": 16, "qwen": 16, "gemma": 8}


def _last_two_blocks(family: str, bare: dict[str, torch.nn.Parameter]) -> int:
    """All blocks of a twin, and what normalises their output."""
    stack = r"\.(layers?|h|albert_layer_groups)\.\d"
    if family in ENCODER_DECODERS:
        stack = r"\.decoder\.(layers|block)\.\d"
    blocks = [p for n, p in bare.items() if re.search(stack, n)]
    final = D * {"gpt2": 2, "phi": 2}.get(family, 1 if SHAPES[family] == _LLAMA_SHAPES else 0)
    final += D if family in ("gemma", "modernbert", "t5") else 0
    return sum(p.numel() for p in blocks) + final


def _everything_but_the_head(family: str, bare: dict[str, torch.nn.Parameter]) -> int:
    return sum(p.numel() for p in bare.values()) - HEADS[family]


CLOSED_FORMS: dict[str, Callable[[str, dict[str, torch.nn.Parameter]], int]] = {
    "lora": lambda family, _: (
        BLOCKS[family] * sum(RANK * (d_in + d_out) for d_in, d_out in SHAPES[family])
    ),
    "bottleneck": lambda family, _: (
        (5 if family in ENCODER_DECODERS else 2) * BLOCKS[family] * (2 * D * M + M + D)
    ),
    "prompt_tuning": lambda family, _: PROMPT * EMBEDDED[family],
    "p_tuning": lambda family, _: (
        PROMPT * EMBEDDED[family]
        + 2 * EMBEDDED[family] * 128
        + 128 * 128
        + 2 * 128
        + EMBEDDED[family]
    ),
    "prefix_tuning": lambda family, _: L * PROMPT * 2 * KEYS[family],
    "ia3": lambda family, _: BLOCKS[family] * SCALED[family],
    "layernorm_tuning": lambda family, _: NORMS[family],
    "last_layers": _last_two_blocks,
    "bitfit": lambda family, _: BIASES[family],
    "full": _everything_but_the_head,
    "continued_pretraining": _everything_but_the_head,
    "scratch": _everything_but_the_head,
}
