"""Every method on every family, merged and proven equal, or refused; and every fault is caught.

Default: each pair of method and family, method and number format, method and base, family and base
is somewhere in the matrix; of that, one cell in some is run without `-m matrix`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cells import CLASSIFIERS, MATRIX, SENSES, UNSUPPORTED
from merging_runs import is_packed, leave_manifest, leave_run
from peftkit.errors import InvalidInput, Unsupported, VerificationFailed
from peftkit.merging.performing import Merged, merge_run
from peftkit.merging.whole import unpacked
from peftkit.saved import load_run

pytestmark = pytest.mark.usefixtures("libraries")

_QUERIES = r"query|query_proj|q_proj|q_lin|q|c_attn|Wqkv|SelfAttention\.q"  # of any family
MERGED: dict[str, Any] = {
    "lora": "lora",
    "rslora": {"name": "lora", "rslora": True, "rank_pattern": {_QUERIES: 2}},
    "dora": {"name": "lora", "dora": True, "alpha_pattern": {_QUERIES: 3.0}},
    "lora_bias": {"name": "peft:lora", "lora_bias": True, "target_modules": ["query"]},
    "ia3": "ia3",
    "bitfit": "bitfit",
    "layernorm_tuning": "layernorm_tuning",
    "last_layers": {"name": "last_layers", "num_layers": 1},
}
REFUSED = ("bottleneck", "prompt_tuning", "prefix_tuning", "p_tuning")
FORMATS = ("float32", "bfloat16")
BASES = ("none", "int8", "nf4")
# T5's attention is so sharp that roundings are all that is seen; DeBERTa's fails under autocast.
_NOT_COARSE = ("t5", "deberta_v2")
_BIASED = {"bert", "roberta", "deberta_v2", "electra", "albert"}  # with a bias where lora_bias goes


def _exists(name: str, family: str, base: str) -> bool:
    method = "lora" if name in ("rslora", "dora", "lora_bias") else name
    if (method, family) in UNSUPPORTED["text_classification"]:
        return False
    if name == "lora_bias" and family not in _BIASED:
        return False
    if name == "last_layers" and base != "none":
        return False
    return not (name == "dora" and base == "int8")


def _cells() -> list[Any]:
    """A pairwise cover: number format and base turn with the place of method and family."""
    found = []
    for i, name in enumerate(MERGED):
        for k, family in enumerate(CLASSIFIERS):
            dtype, base = FORMATS[(i + k) % 2], BASES[(i + 2 * k) % 3]
            base = base if _exists(name, family, base) else "none"
            dtype = "float32" if family in _NOT_COARSE else dtype
            if _exists(name, family, base):
                marks = () if (k + 3 * i) % 7 == 0 else MATRIX
                cell = (name, family, dtype, base)
                found.append(pytest.param(*cell, id="-".join(cell), marks=marks))
    return found


@pytest.fixture(scope="module")
def left(
    make_bench: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a function that leaves a run's folder: of a method on a family's twin."""

    def leave(method: Any, family: str, **backbone: Any) -> Path:
        dtype = backbone.get("dtype", "float32")
        bench = make_bench(method, {"name": f"twin:{family}", **backbone}, precision=dtype)
        folder = tmp_path_factory.mktemp("run")
        # Far moves make activations so sharp that the roundings of bfloat16 are all that is seen.
        leave_run(bench, folder, 1.0 if dtype == "float32" else 0.25)
        return folder

    return leave


def here(run: Path, out: Path, **options: Any) -> Merged:
    """Merge, and load the outcome in this process."""
    return merge_run(run, out, num_rows=12, fresh_process=False, **options)


# PEFT takes a bias of B for a shard that was not gathered.
@pytest.mark.filterwarnings("ignore:.*LoRA tensor.* have invalid shape")
@pytest.mark.parametrize(("name", "family", "dtype", "base"), _cells())
def test_what_merges_is_proven_equal(
    left: Callable[..., Path], tmp_path: Path, name: str, family: str, dtype: str, base: str
) -> None:
    run = left(MERGED[name], family, dtype=dtype, quantization=base)

    done = here(run, tmp_path / "merged")

    binding = done.to_unmerged or done.to_adapted
    assert binding.holds
    assert done.to_adapted.holds or base == "int8"  # which rounds what layers read, too
    assert binding.agreement.num_rows == 12
    if dtype == "float32" and family != "t5":
        assert binding.first is None
    assert done.request.base == ("plain" if base == "none" else "dequantized")
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert config["dtype"] == dtype
    assert list(config["id2label"].values()) == ["finance", "question", "table"]
    assert "quantization_config" not in config
    assert {t.dtype for t in load_file(tmp_path / "merged/model.safetensors").values()} == {
        getattr(torch, dtype)
    }


@pytest.mark.parametrize(
    ("family", "task"),
    [("roberta", "token_classification"), ("bert", "question_answering"), *SENSES.items()],
)
def test_other_heads_and_other_senses_are_merged_too(
    bench_of: Callable[..., Any], tmp_path: Path, family: str, task: str
) -> None:
    leave_run(bench_of("lora", family, task), tmp_path / "run")

    done = here(tmp_path / "run", tmp_path / "merged")

    assert done.to_adapted.holds
    assert done.to_adapted.first is None
    assert done.to_adapted.agreement.metrics


def test_an_adapter_on_a_backbone_of_its_own_is_merged_into_that(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    method = {"name": "continued_pretraining", "then": "lora", "steps": 2}
    bench = make_bench(method, "twin:gpt2", learning_rate=0.02)
    bench.recipe.method.fit(bench).save(tmp_path / "run")
    leave_manifest(bench, tmp_path / "run")

    done = here(tmp_path / "run", tmp_path / "merged")

    assert done.to_adapted.first is None


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_place_in_the_weights_says_so_and_what_to_do(
    left: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    run = left(name, "bert")

    with pytest.raises(Unsupported, match="peftkit export RUN --format onnx") as caught:
        here(run, tmp_path / "merged")

    assert name in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_biases_that_peft_trains_in_the_base_are_merged(
    left: Callable[..., Path], tmp_path: Path
) -> None:
    method = {"name": "peft:lora", "bias": "lora_only", "target_modules": ["query"]}

    assert here(left(method, "bert"), tmp_path / "merged").to_adapted.holds


def test_a_finer_format_than_that_of_training_is_judged_by_the_coarser(
    left: Callable[..., Path], tmp_path: Path
) -> None:
    run = left("lora", "bert", dtype="bfloat16")
    done = here(run, tmp_path / "merged", dtype="float32")

    assert done.to_adapted.holds
    assert done.to_adapted.agreement.largest_difference > 1e-4 * done.to_adapted.scale


@pytest.mark.parametrize("bits", ["int8", "nf4"])
@pytest.mark.parametrize("route", ["original", "requantized"])
def test_other_routes_from_packed_weights_report_what_they_cost(
    left: Callable[..., Path], tmp_path: Path, bits: str, route: str
) -> None:
    run = left("ia3", "gpt2", quantization=bits)  # PEFT itself cannot merge it into packed weights

    done = here(run, tmp_path / "merged", base=route)

    assert done.to_adapted.agreement.kl > 0
    assert is_packed(load_run(tmp_path / "merged").predictor.model) == (route == "requantized")
    assert (done.to_unmerged is None) == (route == "requantized")
    assert done.to_unmerged is None or done.to_unmerged.first is None


def test_dequantized_weights_are_what_was_trained_against(
    left: Callable[..., Path], tmp_path: Path
) -> None:
    run = left("lora", "llama", quantization="nf4")
    off = {}
    for route in ("original", "dequantized", "requantized"):
        done = here(run, tmp_path / route, base=route)
        off[route] = done.to_adapted.agreement.kl

    assert off["dequantized"] < 1e-9 < 1e-6 < min(off["original"], off["requantized"])


def test_what_packed_weights_stand_for_is_near_what_was_packed(
    make_bench: Callable[..., Any],
) -> None:
    """Rows of int8 are off by half a step of 1/127 of their largest number; nf4 by more."""
    plain = dict(make_bench("lora", "twin:gpt2").backbone.model.named_parameters())
    for bits, step in (("int8", 1 / 127), ("nf4", 0.5)):
        bench = make_bench("lora", {"name": "twin:gpt2", "quantization": bits})
        found = unpacked(bench.backbone.model)
        assert set(found) == set(bench.backbone.layers.linear())
        for name, weight in found.items():
            whole = plain[f"{name}.weight"].T
            off = (weight - whole).abs() / whole.abs().amax(dim=1, keepdim=True)
            assert 0 < off.max() < 0.6 * step, name


# ---- planted faults: each is seen by the verification, and leaves nothing behind

Tensors = dict[str, torch.Tensor]


def _plant(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[Tensors, dict[str, Any]], None]
) -> None:
    """Change what was written, just before it is loaded again."""
    from peftkit.merging import describing

    settle = describing.settle_config

    def planted(folder: Path, base: Path) -> None:
        settle(folder, base)
        weights = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        fault(weights, config)
        save_file({n: t.contiguous() for n, t in weights.items()}, folder / "model.safetensors",
                  metadata={"format": "pt"})  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))

    monkeypatch.setattr(describing, "settle_config", planted)


def _forgotten_bias(weights: Tensors, config: dict[str, Any]) -> None:
    for name in weights:
        if name.endswith(("key.bias", "value.bias")):
            weights[name] = torch.zeros_like(weights[name])


def _unmerged_head(weights: Tensors, config: dict[str, Any]) -> None:
    weights["classifier.weight"] = 0.02 * torch.randn_like(weights["classifier.weight"])


def _transposed(weights: Tensors, config: dict[str, Any]) -> None:
    weights["transformer.h.0.attn.c_proj.weight"] = weights["transformer.h.0.attn.c_proj.weight"].T


def _wrong_base(weights: Tensors, config: dict[str, Any]) -> None:
    name = "bert.embeddings.word_embeddings.weight"
    weights[name] = weights[name] + 0.01 * torch.randn_like(weights[name])


FAULTS = {
    "forgotten bias": ("ia3", "bert", _forgotten_bias, "attention.self"),
    "unmerged head": ("lora", "bert", _unmerged_head, "classifier"),
    "transposed Conv1D": ("lora", "gpt2", _transposed, r"transformer\.h\.0\.attn\.c_proj"),
    "wrong base": ("lora", "bert", _wrong_base, "layer.0|embeddings"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_what_is_written_is_caught_and_named(
    left: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    method, family, plant, first = FAULTS[fault]
    run = left(method, family)
    _plant(monkeypatch, plant)

    with pytest.raises(VerificationFailed, match=rf"the first layer that differs is .*{first}"):
        here(run, tmp_path / "merged")

    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("engine", ["shards", "whole"])
@pytest.mark.parametrize("fault", ["wrong scaling", "nothing merged"])
def test_a_fault_in_the_sum_is_caught(
    left: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str,
    engine: str,
) -> None:  # fmt: skip
    from peft.tuners.lora import layer

    run = left({"name": "lora", "rslora": True}, "llama")
    update = layer.Linear.get_delta_weight
    factor = 8**-0.5 if fault == "wrong scaling" else 0.0  # alpha over r, not over its root

    monkeypatch.setattr(layer.Linear, "get_delta_weight", lambda s, a: factor * update(s, a))
    if engine == "whole":
        monkeypatch.setattr("peftkit.merging.shards.LIKE_LORA", ())
    with pytest.raises(VerificationFailed, match=r"first layer .*layers\.0\.self_attn\.q_proj"):
        here(run, tmp_path / "merged")

    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"dtype": "bfloat16"}, {}),
        ({"base": "requantized"}, {"quantization": "nf4"}),
        ({"base": "requantized"}, {"quantization": "int8"}),
    ],
    ids=["bfloat16", "nf4", "int8"],
)
def test_a_merge_of_nothing_is_caught_where_weights_are_rounded(
    left: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str], settings: dict[str, str],
) -> None:  # fmt: skip
    """Rounding to bfloat16 may move a logit further than the whole adapter does."""
    from peft.tuners.lora import layer

    run = left("lora", "llama", **settings)
    kept = here(run, tmp_path / "right", **options)
    update = layer.Linear.get_delta_weight
    monkeypatch.setattr(layer.Linear, "get_delta_weight", lambda s, a: 0.0 * update(s, a))

    with pytest.raises(VerificationFailed, match=r"with -?\d% of what the adapter does"):
        here(run, tmp_path / "merged", **options)
    assert kept.to_adapted.kept == pytest.approx(1.0, abs=0.4)  # of 12 rows, in 4 bits
    assert not (tmp_path / "merged").exists()


@pytest.fixture
def writer(make_bench: Callable[..., Any], tmp_path: Path) -> Path:
    """A run of a language model whose output layer is its embeddings."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for split in ("train", "validation", "test"):
        lines = [
            {"text": f"the list of {w} is a new file"} for w in ("data", "row", "model", "pay")
        ]
        (texts / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines * 3)))
    bench = make_bench("lora", "twin:gpt2", task={"name": "language_modeling", "data": str(texts)})
    leave_run(bench, tmp_path / "run")
    return tmp_path / "run"


def test_tied_embeddings_stay_tied(writer: Path, tmp_path: Path) -> None:
    done = here(writer, tmp_path / "merged")

    weights = load_file(tmp_path / "merged/model.safetensors")
    model: Any = load_run(tmp_path / "merged").predictor
    assert done.to_adapted.holds
    assert "lm_head.weight" not in weights
    assert model.model.lm_head.weight is model.model.transformer.wte.weight
    assert done.to_adapted.agreement.metrics.keys() >= {"bits_per_byte"}


def test_split_embeddings_are_caught(
    writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def split(weights: Tensors, config: dict[str, Any]) -> None:
        config["tie_word_embeddings"] = False
        weights["lm_head.weight"] = weights["transformer.wte.weight"] * 1.05

    _plant(monkeypatch, split)
    with pytest.raises(VerificationFailed, match="logits differ"):
        here(writer, tmp_path / "merged")

    assert not (tmp_path / "merged").exists()


def test_another_base_is_refused_by_its_fingerprint(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    from peftkit.backbones._twin import twin_folder

    own = shutil.copytree(twin_folder("bert"), tmp_path / "base")
    leave_run(make_bench("lora", str(own)), tmp_path / "run")
    weights = load_file(own / "model.safetensors")
    name = next(n for n in weights if n.endswith("word_embeddings.weight"))
    save_file(weights | {name: weights[name] * 1.01}, own / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip

    with pytest.raises(InvalidInput, match="its weights differ"):
        here(tmp_path / "run", tmp_path / "merged")
    assert here(tmp_path / "run", tmp_path / "merged", allow_other_base=True).to_adapted.holds


@pytest.mark.parametrize(
    ("task", "folder", "problem"),
    [("text_regression", "valued_folder", "regression"),
     ("multi_label_classification", "several_folder", "multi_label_classification")],
)  # fmt: skip
def test_numbers_and_several_labels_are_merged_too(
    make_bench: Callable[..., Any],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    task: str,
    folder: str,
    problem: str,
) -> None:
    """The unit of numbers, and how transformers reads several labels, are in the configuration."""
    data = str(request.getfixturevalue(folder))
    leave_run(make_bench("lora", task={"name": task, "data": data}), tmp_path / "run")
    here(tmp_path / "run", tmp_path / "merged")
    before, after = (
        load_run(tmp_path / name).evaluate(f"{data}/test.jsonl") for name in ("run", "merged")
    )
    config = json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))

    assert after == pytest.approx(before, rel=1e-4)
    assert config["problem_type"] == problem
