"""Adapters combined, against dense arithmetic written out here and against merged models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import (
    base_weights,
    dense,
    head_of,
    logits,
    make_run,
    merged_logits,
    read,
    relative,
)
from peftkit.cli import main
from peftkit.combining import Request, combine_runs
from peftkit.errors import InvalidInput, UnknownName, WrongBackbone
from peftkit.record import CONTINUED

pytestmark = pytest.mark.usefixtures("libraries")
Make = Callable[..., Any]
PATTERNS = {"name": "lora", "rank": 4, "rank_pattern": {"query": 2, "layer.1.output.dense": 6},
            "alpha_pattern": {"value": 3.0}}  # fmt: skip
BIASED = {"name": "peft:lora", "lora_bias": True, "r": 4, "target_modules": ["query", "value"]}
RSLORA = {"name": "lora", "rank": 4, "alpha": 6.0, "rslora": True}
DORA = {"name": "lora", "rank": 4, "alpha": 6.0, "dora": True}
PLAIN = {"name": "lora", "rank": 4, "alpha": 6.0}


@pytest.fixture(scope="module")
def runs(make_bench: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that makes a run's folder, once for equal arguments."""
    made: dict[str, Path] = {}

    def make(method: Any, backbone: Any = "twin:bert", **options: Any) -> Path:
        key = repr((method, backbone, sorted(options.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("run") / "run"
            made[key] = make_run(make_bench, folder, method, backbone, **options)
        return made[key]

    return make


@pytest.fixture
def copied(runs: Callable[..., Path], tmp_path: Path) -> Path:
    """A run's folder of one's own, to be damaged."""
    return Path(shutil.copytree(runs(PLAIN), tmp_path / "copied"))


def stored_updates(folder: Path, weights: dict[str, Any]) -> dict[str, Any]:
    """Updates of a result, whose scale is 1 in every layer."""
    config, _ = read(folder)
    alphas = {config["lora_alpha"], *config["alpha_pattern"].values()}
    ranks = {config["r"], *config["rank_pattern"].values()}
    assert alphas == ranks
    assert not config["use_rslora"]
    return dense(folder, weights, 1.0)


# ---- one adapter alone is itself


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        (PLAIN, "twin:bert"),
        (RSLORA, "twin:bert"),
        (DORA, "twin:bert"),
        ({**DORA, "rslora": True}, "twin:gpt2"),  # weights stored transposed
        (PATTERNS, "twin:bert"),
        (BIASED, "twin:bert"),
        (DORA, {"name": "twin:llama", "quantization": "nf4"}),
        (PLAIN, {"name": "twin:bert", "quantization": "int8"}),
    ],
    ids=["plain", "rslora", "dora", "transposed", "patterns", "biases", "nf4", "int8"],
)
def test_an_adapter_of_weight_one_answers_as_it_did(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path, method: Any, backbone: Any
) -> None:
    folder = runs(method, backbone)
    combined = combine_runs([folder], tmp_path / "out", Request(weights=(1.0,)))
    bench = make_bench(PLAIN, backbone)

    assert relative(logits(tmp_path / "out", bench), logits(folder, bench)) < 1e-5
    assert combined.error < 1e-6
    assert combined.kind == ("DoRA" if method.get("dora") else "LoRA")


def test_dora_is_a_plain_lora_of_full_rank_where_that_is_asked_for(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path
) -> None:
    folder, bench = runs(DORA), make_bench(PLAIN)
    combined = combine_runs([folder], tmp_path / "out", Request(method="svd", energy=1.0))
    config, _ = read(tmp_path / "out")

    assert relative(logits(tmp_path / "out", bench), logits(folder, bench)) < 1e-5
    assert combined.kind == "LoRA"
    assert combined.rank == 32  # the whole width: diag(g) W is not of low rank
    assert not config["use_dora"]


def test_the_head_alone_would_not_answer_so(make_bench: Make, runs: Callable[..., Path]) -> None:
    """The runs are strong enough for the comparisons here to mean anything."""
    folder = runs(PLAIN)
    bare = merged_logits(make_bench, "twin:bert", {}, head_of(folder))

    assert relative(bare, logits(folder, make_bench(PLAIN))) > 0.1


# ---- sums


def test_sums_of_all_variants_are_those_of_their_matrices(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path
) -> None:
    some = {"targets": ["query", "mlp_output"], "rank": 2}
    folders = [runs(PLAIN), runs({**RSLORA, **some}, draw=1), runs(DORA, draw=2)]
    amounts, scales = [0.5, 0.4, 0.3], [1.5, 6 / 2**0.5, 1.5]
    combined = combine_runs(folders, tmp_path / "out", Request(weights=tuple(amounts)))
    weights = base_weights(make_bench)
    expected: dict[str, Any] = {}
    for folder, amount, scale in zip(folders, amounts, scales, strict=True):
        for name, update in dense(folder, weights, scale).items():
            expected[name] = expected.get(name, 0) + amount * update
    head = {
        name: sum(a / 1.2 * head_of(f)[name] for a, f in zip(amounts, folders, strict=True))
        for name in head_of(folders[0])
    }
    found = stored_updates(tmp_path / "out", weights)

    assert set(found) == set(expected)
    for name, update in expected.items():
        assert relative(found[name], update) < 1e-6
    answers = merged_logits(make_bench, "twin:bert", expected, head)
    assert relative(logits(tmp_path / "out", make_bench(PLAIN)), answers) < 1e-5
    assert combined.rank == 10


def test_a_weight_of_minus_one_takes_an_adapter_away(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path
) -> None:
    one, other = runs(PLAIN), runs(RSLORA, draw=1)
    both = combine_runs([one, other], tmp_path / "both", Request(method="task_arithmetic"))
    back = combine_runs(
        [tmp_path / "both", other],
        tmp_path / "back",
        Request(method="task_arithmetic", weights=(1.0, -1.0)),
        head=tmp_path / "both",
    )
    weights = base_weights(make_bench)
    expected = dense(one, weights, 1.5)

    assert both.rank == 8
    assert back.rank == 4  # what has gone takes no rank
    for name, update in stored_updates(tmp_path / "back", weights).items():
        assert relative(update, expected[name]) < 1e-5


def test_cat_puts_factors_beside_one_another(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [runs(PLAIN), runs({**PLAIN, "rank": 3}, draw=1)]
    combined = combine_runs(folders, tmp_path / "out", Request(method="cat", weights=(2, -0.5)),
                            head=folders[0])  # fmt: skip
    name = "bert.encoder.layer.0.attention.self.query.lora_A.weight"
    parts = [read(folder)[1][name] for folder in folders]

    assert torch.equal(read(tmp_path / "out")[1][name], torch.cat(parts))
    assert {layer.rank for layer in combined.layers} == {7}
    assert combined.error < 1e-7


def test_svd_keeps_the_best_part_of_a_rank_and_states_what_is_lost(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path
) -> None:
    folders, weights = [runs(PLAIN), runs(PLAIN, draw=1)], base_weights(make_bench)
    usual = combine_runs(folders, tmp_path / "usual", Request(method="svd"))
    asked = combine_runs(folders, tmp_path / "asked", Request(method="svd", rank=3))
    whole = lost = 0.0
    for layer in asked.layers:
        target = sum(0.5 * dense(folder, weights, 1.5)[layer.name] for folder in folders)
        left, values, right = torch.linalg.svd(target)
        best = (left[:, :3] * values[:3]) @ right[:3]
        tail = float(values[3:].square().sum())

        assert relative(stored_updates(tmp_path / "asked", weights)[layer.name], best) < 1e-5
        assert layer.error == pytest.approx((tail / float(target.square().sum())) ** 0.5, rel=1e-4)
        whole, lost = whole + float(target.square().sum()), lost + tail
    assert usual.rank == 4
    assert asked.error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)


def test_energy_chooses_ranks_layer_by_layer_that_reload(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path
) -> None:
    """PEFT reads names of patterns as regular expressions; these have to be found again."""
    folders = [runs(PATTERNS), runs(PLAIN, draw=1)]
    combined = combine_runs(folders, tmp_path / "out", Request(energy=0.9))
    config, tensors = read(tmp_path / "out")
    weights = base_weights(make_bench)
    updates = stored_updates(tmp_path / "out", weights)
    head = head_of(tmp_path / "out")

    assert len(config["rank_pattern"]) > 1
    assert all(0.1 < layer.error <= 0.1**0.5 + 1e-6 for layer in combined.layers)
    for layer in combined.layers:
        assert tensors[f"{layer.name}.lora_A.weight"].shape[0] == layer.rank
    answers = merged_logits(make_bench, "twin:bert", updates, head)
    assert relative(logits(tmp_path / "out", make_bench(PLAIN)), answers) < 1e-5


# ---- TIES and DARE


def test_ties_and_dare_of_adapters_are_those_of_their_matrices(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path
) -> None:
    from peftkit.seeds import derive

    folders, weights = [runs(PLAIN), runs(DORA, draw=1)], base_weights(make_bench)
    vectors = [dense(folder, weights, 1.5) for folder in folders]
    trimmed = []
    for vector in vectors:
        every = torch.cat([part.abs().flatten() for part in vector.values()])
        least = every.topk(round(0.3 * len(every))).values.min()
        trimmed.append({n: p * (p.abs() >= least * (1 - 1e-7)) for n, p in vector.items()})
    ties = combine_runs(folders, tmp_path / "ties", Request(method="ties", density=0.3, energy=1))
    for name, found in stored_updates(tmp_path / "ties", weights).items():
        one, other = (each[name] for each in trimmed)
        same = one.sign() == other.sign()
        larger = torch.where(one.abs() > other.abs(), one, other)
        expected = torch.where(same, (one + other) / 2, larger)

        assert relative(found, expected) < 1e-5
    assert ties.rank == 32
    dare = combine_runs(folders, tmp_path / "dare", Request(method="dare_linear", density=0.4,
                                                            energy=1, seed=7))  # fmt: skip
    for name, found in stored_updates(tmp_path / "dare", weights).items():
        expected = 0
        for i, vector in enumerate(vectors):
            torch.manual_seed(derive(7, f"dare|{i}|{name}"))
            kept = torch.rand(vector[name].shape, dtype=torch.float64) < 0.4
            expected = expected + 0.5 * torch.where(kept, vector[name] / 0.4, 0)
        assert relative(found, expected) < 1e-5
    assert dare.kind == ties.kind == "LoRA"


def test_what_is_not_of_low_rank_says_so(
    runs: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(runs(PLAIN)), str(runs(PLAIN, draw=1))]
    code = main(["combine", *folders, "--out", str(tmp_path / "out"), "--method", "dare_ties"])
    said = capsys.readouterr().out

    assert code == 0
    assert "not of low rank: rank 8 holds" in said
    assert "--energy 0.99" in said


# ---- heads


def test_labels_and_head_are_those_of_the_run_that_is_named(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path
) -> None:
    one = runs(PLAIN)
    other = Path(shutil.copytree(runs(PLAIN, draw=1), tmp_path / "other"))
    body = json.loads((other / "peftkit.json").read_text())
    body["labels"] = ["one", "two", "three"]
    (other / "peftkit.json").write_text(json.dumps(body))
    with pytest.raises(InvalidInput, match=r"differ in their labels.*--head RUN"):
        combine_runs([one, other], tmp_path / "out")
    combined = combine_runs([one, other], tmp_path / "out", head=other)

    assert combined.head == f"as in {other}"
    assert json.loads((tmp_path / "out" / "peftkit.json").read_text())["labels"] == body["labels"]
    for name, tensor in head_of(other).items():
        assert torch.equal(head_of(tmp_path / "out")[name], tensor)


def test_a_head_is_never_taken_away(runs: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be taken away.*--head RUN"):
        combine_runs([runs(PLAIN), runs(PLAIN, draw=1)], tmp_path / "out",
                     Request(weights=(1, -1)))  # fmt: skip


def test_another_pooling_is_another_head(runs: Callable[..., Path], tmp_path: Path) -> None:
    other = runs(PLAIN, {"name": "twin:bert", "pooling": "mean"}, draw=1)
    with pytest.raises(InvalidInput, match=r"differ in their pooling"):
        combine_runs([runs(PLAIN), other], tmp_path / "out")


def test_where_nothing_was_trained_whole_there_is_no_head(make_bench: Make, tmp_path: Path) -> None:
    """Language models keep their own output layer; its weights are not in the adapters."""
    from toys import write_lines

    rows = [{"text": "the name of the file is new and the card is lost"} for _ in range(4)]
    data = write_lines(tmp_path / "data", train=rows, validation=rows[:2], test=rows[:2])
    task = {"name": "language_modeling", "data": str(data)}
    runs = [
        make_run(make_bench, tmp_path / f"run-{i}", {**PLAIN, "rslora": bool(i)}, "twin:gpt2",
                 draw=i, task=task)
        for i in range(2)
    ]  # fmt: skip
    weights = base_weights(make_bench, "twin:gpt2")
    combined = combine_runs(runs, tmp_path / "out", Request(weights=(1.0, -0.5)))
    updates = stored_updates(tmp_path / "out", weights)

    assert combined.head.startswith("none")
    for name, update in updates.items():
        one, other = (
            dense(run, weights, scale)[name] for run, scale in zip(runs, (1.5, 3.0), strict=True)
        )
        assert relative(update, one - 0.5 * other) < 1e-6


# ---- what stock PEFT makes of it


@pytest.mark.parametrize("method", [PLAIN, DORA], ids=["plain", "dora"])
def test_stock_peft_loads_the_result(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path, method: Any
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    from peftkit.backbones._twin import twin_folder

    combine_runs([runs(method), runs(RSLORA, draw=1)], tmp_path / "out", Request(energy=0.95))
    bench = make_bench(PLAIN)
    whole = AutoModelForSequenceClassification.from_pretrained(twin_folder("bert"), num_labels=3)
    model = PeftModel.from_pretrained(whole, tmp_path / "out").eval()
    batch = bench.collate(bench.encode(bench.data.test))
    del batch["labels"]
    with torch.no_grad():
        found = model(**batch).logits

    assert relative(found, logits(tmp_path / "out", bench)) < 1e-5
    assert model.merge_and_unload(safe_merge=True) is not None


# ---- refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"density": 0.5}, "density is an option of ties"),
        ({"method": "ties", "seed": 1}, "seed is an option of dare_linear"),
        ({"method": "ties", "density": 0.0}, "density"),
        ({"method": "ties", "density": 1.5}, "density"),
        ({"rank": 0}, "rank"),
        ({"energy": 1.2}, "energy"),
        ({"rank": 2, "energy": 0.5}, "only one of them"),
        ({"method": "cat", "rank": 2}, "cat keeps every factor"),
        ({"weights": (1.0, float("nan"))}, "weights"),
        ({"weights": (1.0, 1.0, 1.0)}, "3 weights, 2 runs"),
        ({"method": "tie"}, "Did you mean 'ties'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    runs: Callable[..., Path], tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        combine_runs([runs(PLAIN), runs(PLAIN, draw=1)], tmp_path / "out", Request(**options))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "backbone", "words"),
    [
        ("ia3", "twin:bert", r"no LoRA.*ia3"),
        ("full", "twin:bert", r"holds no adapter.*full"),
        ({"name": "peft:lora", "init_lora_weights": "olora"}, "twin:bert", "init_lora_weights"),
        ({"name": "peft:lora", "bias": "lora_only"}, "twin:bert", "bias='lora_only'"),
        (PLAIN, "twin:roberta", r"different backbones.*weights"),
        (PLAIN, {"name": "twin:bert", "quantization": "nf4"}, r"different backbones.*nf4"),
    ],
    ids=["ia3", "full", "moved", "bias", "fingerprint", "quantization"],
)
def test_runs_that_cannot_be_summed_are_refused(
    runs: Callable[..., Path], tmp_path: Path, method: Any, backbone: Any, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        combine_runs([runs(PLAIN), runs(method, backbone)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_weights_behind_another_tokenizer_are_another_backbone(
    runs: Callable[..., Path], copied: Path, tmp_path: Path
) -> None:
    manifest = json.loads((copied / "peftkit.json").read_text())
    manifest["backbone"]["tokenizer_fingerprint"] = "0" * 64
    (copied / "peftkit.json").write_text(json.dumps(manifest))
    other = Path(shutil.copytree(copied, tmp_path / "other"))
    manifest["backbone"]["tokenizer_fingerprint"] = "1" * 64
    (other / "peftkit.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidInput, match=r"different backbones.*tokenizer 1111"):
        combine_runs([other, copied], tmp_path / "out")
    combine_runs([runs(PLAIN), copied], tmp_path / "out")  # a run that has none noted


def test_an_adapter_on_a_backbone_of_its_own_is_refused(copied: Path, tmp_path: Path) -> None:
    (copied / CONTINUED).mkdir()
    with pytest.raises(InvalidInput, match="a backbone of its own"):
        combine_runs([copied], tmp_path / "out")


def test_biases_and_lengths_have_no_adapter_that_holds_both(
    make_bench: Make, runs: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [runs(DORA), runs(BIASED)]
    with pytest.raises(InvalidInput, match=r"biases beside B.*--method svd"):
        combine_runs(folders, tmp_path / "out")
    combined = combine_runs(folders, tmp_path / "out", Request(method="svd", energy=1.0))
    _, tensors = read(tmp_path / "out")
    name = "bert.encoder.layer.1.attention.self.query"
    source = read(folders[1])[1][f"{name}.lora_B.bias"]

    assert combined.error < 1e-6
    torch.testing.assert_close(tensors[f"{name}.lora_B.bias"], 0.5 * 2 * source)
    assert not tensors["bert.encoder.layer.1.output.dense.lora_B.bias"].any()


def damage_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def damage_half(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_config(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


def damage_manifest(folder: Path) -> None:
    (folder / "peftkit.json").unlink()


def damage_link(folder: Path) -> None:
    moved = folder.parent / "elsewhere.safetensors"
    (folder / "adapter_model.safetensors").rename(moved)
    (folder / "adapter_model.safetensors").symlink_to(moved)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


def damage_pair(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.pop(f"{QUERY}.lora_B.weight"))


def damage_numbers(folder: Path) -> None:
    edit(folder, lambda tensors: tensors[f"{QUERY}.lora_B.weight"].fill_(float("inf")))


def damage_name(folder: Path) -> None:
    part = {f"../../{n}": torch.ones(4, 4) for n in ("x.lora_A.weight", "x.lora_B.weight")}
    edit(folder, lambda tensors: tensors.update(part))


def damage_part(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.update({f"{QUERY}.lora_C.weight": torch.ones(4)}))


def damage_shape(folder: Path) -> None:
    edit(folder, lambda ts: ts.update({f"{QUERY}.lora_A.weight": torch.ones(4, 5)}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_pickle, r"pickled.*save_pretrained"),
        (damage_half, r"half written"),
        (damage_config, r"half written"),
        (damage_manifest, r"not the folder of a finished run"),
        (damage_link, r"leads out of its folder"),
        (damage_pair, r"do not belong together"),
        (damage_numbers, r"not finite"),
        (damage_name, r"does not fit the backbone at \.\./\.\./x"),
        (damage_part, r"no part of a LoRA.*lora_C"),
        (damage_shape, r"does not fit the backbone.*\(32, 5\).*\(32, 32\)"),
    ],
)
def test_damaged_runs_are_refused(
    copied: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(copied)
    with pytest.raises(InvalidInput, match=words):
        combine_runs([copied], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_backbone_that_has_changed_since_is_refused(copied: Path, tmp_path: Path) -> None:
    body = json.loads((copied / "peftkit.json").read_text())
    body["backbone"]["fingerprint"] = "0" * 64
    (copied / "peftkit.json").write_text(json.dumps(body))
    with pytest.raises(WrongBackbone, match="has changed since"):
        combine_runs([copied], tmp_path / "out")


def test_nothing_is_overwritten_unasked_and_nothing_but_ours(copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    combine_runs([copied], out)
    first = (out / "adapter_model.safetensors").read_bytes()
    (out / "earlier.txt").write_text("of the first")
    with pytest.raises(InvalidInput, match="--overwrite"):
        combine_runs([copied], out, Request(weights=(0.5,)))
    assert (out / "adapter_model.safetensors").read_bytes() == first
    combine_runs([copied], out, Request(weights=(0.5,)), overwrite=True)
    assert (out / "adapter_model.safetensors").read_bytes() != first
    assert not (out / "earlier.txt").exists()
    (out / "peftkit.json").unlink()
    with pytest.raises(InvalidInput, match="holds no earlier combination"):
        combine_runs([copied], out, overwrite=True)
    with pytest.raises(InvalidInput, match="take the place"):
        combine_runs([copied], copied, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied", "out"]


def test_a_failure_leaves_what_was_there(copied: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    out = tmp_path / "out"
    combine_runs([copied], out)
    before = (out / "adapter_model.safetensors").read_bytes()

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        combine_runs([copied], out, Request(weights=(0.5,)), overwrite=True)
    assert (out / "adapter_model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied", "out"]


def test_too_little_room_is_seen_before_anything_is_written(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InvalidInput, match=r"too little room.*1.00 kB are free"):
        combine_runs([copied], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["copied"]


# ---- the command


def test_from_two_trainings_to_answers_of_their_mean(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--task", "text_classification", "--task.data", str(toy_folder), "--backbone",
              "twin:bert", "--training.steps", "2", "--training.batch-size", "4"]  # fmt: skip
    one, two, out = (str(tmp_path / name) for name in ("one", "two", "out"))
    for seed, (folder, variant) in enumerate({one: "rslora", two: "dora"}.items()):
        asked = ["--method", "lora", f"--method.{variant}", "--seed", str(seed), "--out", folder]
        assert main(["run", *asked, *common]) == 0
    capsys.readouterr()

    assert main(["combine", one, two, "--out", out, "--weights", "1,0.5"]) == 0
    said = capsys.readouterr().out
    assert f"linear: 1 x {one}, 0.5 x {two}" in said
    assert "mean of the runs' heads, weighted 0.667, 0.333" in said
    assert f"Wrote a DoRA to {out}." in said
    assert main(["predict", out, "--text", "pay the bank", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in {"finance", "question", "table"}
    assert main(["evaluate", out, "--data", str(toy_folder / "test.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_rows"] == 18
    account = json.loads((tmp_path / "out" / "peftkit.json").read_text())["combined"]
    assert [run["folder"] for run in account["runs"]] == [Path(one).name, Path(two).name]
    assert main(["combine", one, two, "--out", out, "--overwrite", "--json", "--rank", "2"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["rank"] == 2
    assert body["reconstruction_error"] > 0
    assert set(body["layers"]) == set(account["layers"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "the folder of a run is missing"),
        (["run"], "the --out is missing"),
        (["run", "--out", "x", "--wieghts", "1"], "--weights"),
        (["run", "--out", "x", "--method", "tie"], "Did you mean 'ties'"),
        (["no-such-run", "--out", "x"], "not the folder of a finished run"),
        (["run", "--out", "x", "--head", "other"], "one of the runs"),
    ],
)
def test_the_command_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    argv: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)

    assert main(["combine", *argv]) == 2
    assert words in capsys.readouterr().err


def test_unknown_options_of_a_rule_are_unknown_names() -> None:
    with pytest.raises(UnknownName):
        Request(method="dare")  # type: ignore[arg-type]
