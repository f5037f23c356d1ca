"""Bottleneck adapters have as many parameters as published, on models of the published shapes.

Nothing is computed: the models are on the meta device, which holds shapes and no numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import inject_adapter_in_model
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    RobertaConfig,
    RobertaModel,
)

from peftkit.bottleneck import BottleneckConfig

ROBERTA_BASE = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
BERT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
              "intermediate_size": 4096}  # fmt: skip
GPT3 = {"n_embd": 12288, "n_layer": 1, "n_head": 96}  # one of its 96 layers, all alike


def on_meta(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with torch.device("meta"):
        return build()


def count(model: torch.nn.Module, **options: Any) -> int:
    """Parameters of the adapter that `options` describe, on `model`."""
    with torch.device("meta"):
        inject_adapter_in_model(BottleneckConfig(**options), model)
    named = model.named_parameters()
    return sum(p.numel() for name, p in named if ".bottleneck_" in name)


def roberta_base() -> torch.nn.Module:
    return on_meta(lambda: RobertaModel(RobertaConfig(**ROBERTA_BASE)))


def test_the_shape_is_that_of_roberta_base() -> None:
    """AdapterHub prints it as "Full model" below the table of the next test."""
    assert sum(p.numel() for p in roberta_base().parameters()) == 124_645_632


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({"variant": "pfeiffer", "reduction_factor": 16}, 894_528),
        ({"variant": "houlsby", "reduction_factor": 16}, 1_789_056),
        ({"variant": "parallel", "reduction_factor": 2}, 7_091_712),
    ],
)
def test_adapterhub_counts_as_many_on_roberta_base(options: dict[str, Any], published: int) -> None:
    """`pfeiffer`, `houlsby` and `parallel` with their default reduction factors.

    adapterhub.ml/blog/2022/09/updates-in-adapter-transformers-v3-1, output of `adapter_summary()`.
    """
    assert count(roberta_base(), **options) == published


@pytest.mark.parametrize(
    ("variant", "smallest", "largest"),
    [
        ("houlsby", 461_088, 14_183_424),
        ("pfeiffer", 230_544, 7_091_712),
        ("parallel", 230_544, 7_091_712),
    ],
)
def test_the_adapters_library_adds_as_many(variant: str, smallest: int, largest: int) -> None:
    """Of reduction factors 2, 16 and 64 (`double_seq_bn`, `seq_bn`, `par_bn`).

    Poth et al. 2023, "Adapters", arXiv:2311.11077, table 5.
    """
    assert count(roberta_base(), variant=variant, reduction_factor=64) == smallest
    assert count(roberta_base(), variant=variant, reduction_factor=2) == largest


@pytest.mark.parametrize(("size", "millions"), [(1, 7.1), (4, 21.2), (64, 304.4)])
def test_houlsby_on_gpt3_has_as_many_as_in_the_lora_paper(size: int, millions: float) -> None:
    """Hu et al. 2021, arXiv:2106.09685: AdapterH on GPT-3 175B."""
    layer = on_meta(lambda: GPT2Model(GPT2Config(**GPT3)))

    assert round(96 * count(layer, variant="houlsby", bottleneck_size=size) / 1e6, 1) == millions


@pytest.mark.parametrize(("variant", "adapters"), [("houlsby", 2), ("pfeiffer", 1)])
def test_counts_on_bert_large_are_the_papers_equation(variant: str, adapters: int) -> None:
    """Houlsby et al. 2019, section 2.1: 2md + d + m an adapter, two of them a layer."""
    model = on_meta(lambda: BertModel(BertConfig(**BERT_LARGE)))
    m, d, layers = 64, 1024, 24

    expected = adapters * layers * (2 * m * d + d + m)
    assert count(model, variant=variant, bottleneck_size=m) == expected
