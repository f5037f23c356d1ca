"""Stages: one model, one data set after the other; the matrix is what evaluating by hand gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cells import MATRIX
from peftkit import Recipe, load_run, run, sequence
from peftkit.cli import main
from peftkit.errors import InvalidInput, UnknownName, Unsupported
from peftkit.methods.continued_pretraining import ContinuedPretraining as Continued
from peftkit.record import Record
from peftkit.reporting.pairing import Metric
from peftkit.stages import StageMatrix
from peftkit.stages.carrying import as_left, settle_carry
from peftkit.stages.report import to_markdown
from toys import toy_rows, write_csv

pytestmark = pytest.mark.usefixtures("libraries")
ASKED = {
    "A": ("finance", "question"),
    "B": ("question", "table"),
    "C": ("finance", "question", "table"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Data sets of other classes each, but A and A2, which have the same."""
    folder = tmp_path_factory.mktemp("stages")
    for number, name in enumerate(["A", "B", "C", "A2"]):
        (folder / name).mkdir()
        for seed, (split, count) in enumerate({"train": 48, "validation": 12, "test": 60}.items()):
            rows = toy_rows(count, seed=10 * number + seed)
            kept = [row for row in rows if row[1] in ASKED[name[0]]]
            write_csv(folder / name / f"{split}.csv", kept)
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def recipes(data: dict[str, str]) -> Callable[..., list[Recipe]]:
    def make(method: Any, names: str, **training: Any) -> list[Recipe]:
        return [
            Recipe(
                method=method, backbone="twin:bert", seed=3,
                task={"name": "text_classification", "data": data[name], "max_length": 24},
                training={"steps": 25, "batch_size": 4, "precision": "float32",
                          "learning_rate": 5e-3, **training},
            )
            for name in names.split()
        ]  # fmt: skip

    return make


def accuracy_by_hand(model: Any, backbone: Any, folder: str, labels: list[str]) -> float:
    """Text by text, without padding, with the plain model."""
    import csv

    rows = list(csv.DictReader((Path(folder) / "test.csv").read_text("utf-8").splitlines()))
    hits = 0
    for row in rows:
        ids = backbone.processor(row["text"], truncation=True, max_length=24, return_tensors="pt")
        with torch.no_grad():
            hits += labels[int(model(**ids).logits.argmax())] == row["label"]
    return hits / len(rows)


def head_of(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "classifier" in n}


# ---- the matrix is what one gets by hand


@pytest.mark.matrix
def test_full_stages_are_two_runs_and_the_old_head_on_the_new_body(
    recipes: Callable[..., list[Recipe]], data: dict[str, str], tmp_path: Path
) -> None:
    matrix = sequence(recipes("full", "A B"), out=tmp_path / "out")
    one = run(recipes("full", "A")[0], tmp_path / "one")
    second = recipes("full", "B")[0].override({"backbone.name": str(tmp_path / "one")})
    two = run(second, tmp_path / "two")
    first: Any = load_run(tmp_path / "one").predictor
    later: Any = load_run(tmp_path / "two").predictor
    first.model.bert.load_state_dict(later.model.bert.state_dict())
    kept = accuracy_by_hand(first.model, first.bench.backbone, data["A"], ["finance", "question"])
    rows = recipes("full", "A")[0].task.load(seed=3).test
    before = load_run(tmp_path / "one").predictor.outputs(rows)
    lent = as_left([tmp_path / "out/stage-1", tmp_path / "out/stage-2"], "full")

    np.testing.assert_array_equal(lent.predictor.outputs(rows), first.outputs(rows))
    assert not np.allclose(before, first.outputs(rows), atol=0.01)
    assert matrix.carry == "full"
    assert matrix.scores[0] == (one.metrics["test"]["accuracy"], None)
    assert matrix.scores[1] == (pytest.approx(kept), two.metrics["test"]["accuracy"])
    assert Record.read(tmp_path / "out/stage-2/record.json").predictions == two.predictions


def test_a_new_adapter_sits_on_the_merged_backbone(
    recipes: Callable[..., list[Recipe]], data: dict[str, str], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    matrix = sequence(recipes("lora", "A B"), carry="new_adapter", out=tmp_path)
    merged = [
        AutoModelForSequenceClassification.from_pretrained(tmp_path / f"stage-{n}/merged").eval()
        for n in (1, 2)
    ]
    first: Any = load_run(tmp_path / "stage-1").predictor
    bare = dict(first.bench.backbone.model.named_parameters())
    moved = "bert.encoder.layer.0.attention.self.query.weight"
    stacked = load_run(tmp_path / "stage-2")
    later: Any = stacked.predictor
    own = dict(later.model.get_base_model().named_parameters())
    base = own[moved.replace(".weight", ".base_layer.weight")]
    before = dict(merged[0].named_parameters())[moved]

    assert torch.equal(base, before)
    assert not torch.equal(
        before, bare.get(moved, bare.get(moved.replace("query.", "query.base_layer.")))
    )
    model = load_run(tmp_path / "stage-1/merged")  # with the hook that pools
    body: Any = model.predictor
    body.model.bert.load_state_dict(merged[1].bert.state_dict())
    kept = accuracy_by_hand(body.model, body.bench.backbone, data["A"], model.labels)
    assert matrix.scores[1][0] == pytest.approx(kept)
    assert matrix.scores[0][0] == pytest.approx(
        accuracy_by_hand(merged[0], body.bench.backbone, data["A"], model.labels)
    )


@pytest.mark.parametrize(
    "method",
    ["lora", *(pytest.param(m, marks=MATRIX) for m in ("bottleneck", "prompt_tuning", "bitfit"))],
)
def test_the_same_adapter_goes_on_from_its_weights_with_a_head_of_its_own(
    recipes: Callable[..., list[Recipe]], tmp_path: Path, method: str
) -> None:
    """A second stage that hardly moves leaves the adapter of the first; its head is a new one."""
    first, second = recipes(method, "A C")
    still = second.override({"learning_rate": 1e-12, "training.head_learning_rate": "same"})
    matrix = sequence([first, still], carry="same_adapter", out=tmp_path)
    one, two = (load_run(tmp_path / f"stage-{n}").predictor.model for n in (1, 2))  # type: ignore[attr-defined]
    after = dict(two.named_parameters())
    adapter = {n: p for n, p in one.named_parameters() if "default" in n and "classifier" not in n}

    assert adapter
    for name, parameter in adapter.items():
        torch.testing.assert_close(after[name], parameter, rtol=0, atol=1e-8)
    assert {tuple(p.shape) for p in head_of(two).values()} != {
        tuple(p.shape) for p in head_of(one).values()
    }
    assert matrix.scores[1][0] == matrix.scores[0][0]


@pytest.mark.parametrize(
    ("method", "carry"),
    [
        pytest.param("full", "full", marks=MATRIX),
        ("lora", "same_adapter"),
        pytest.param("lora", "new_adapter", marks=MATRIX),
    ],
)
def test_one_head_serves_data_sets_of_the_very_same_classes(
    recipes: Callable[..., list[Recipe]], data: dict[str, str], tmp_path: Path, method: str,
    carry: Any,
) -> None:  # fmt: skip
    matrix = sequence(recipes(method, "A A2", steps=10), carry=carry, out=tmp_path)
    later: Any = load_run(tmp_path / "stage-2").predictor
    labels = ["finance", "question"]
    kept = accuracy_by_hand(later.model, later.bench.backbone, data["A"], labels)

    lent = as_left([tmp_path / "stage-1", tmp_path / "stage-2"], carry)
    rows = lent.recipe.task.load(seed=3).test
    own = load_run(tmp_path / ("stage-2/merged" if carry == "new_adapter" else "stage-2"))

    np.testing.assert_array_equal(lent.predictor.outputs(rows), own.predictor.outputs(rows))
    assert matrix.scores[1][0] == pytest.approx(kept)
    assert matrix.datasets == ("A", "A2")


@pytest.mark.matrix
def test_rows_of_chance_and_of_the_bare_backbone(
    recipes: Callable[..., list[Recipe]], tmp_path: Path
) -> None:
    stages = recipes("full", "A C", steps=2)
    matrix = sequence(stages, out=tmp_path)
    bare = [run(stage.override({"method": "none"})) for stage in stages]

    assert matrix.bare == tuple(record.metrics["test"]["accuracy"] for record in bare)
    assert matrix.chance == tuple(record.data["chance"] for record in bare)


@pytest.mark.matrix
def test_language_models_are_carried_whole(tmp_path: Path) -> None:
    texts = {"one": "pay the bank", "two": "plot the axis of the matrix"}
    stages = []
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        for split in ("train", "validation", "test"):
            lines = [json.dumps({"text": f"{text} {n} " * 4}) for n in range(6)]
            (tmp_path / name / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        task = {"name": "language_modeling", "data": str(tmp_path / name), "max_length": 32}
        training = {"steps": 20, "batch_size": 3, "learning_rate": 5e-3}
        stages.append(Recipe(method="full", backbone="twin:gpt2", task=task, training=training))
    matrix = sequence(stages, out=tmp_path / "out")
    by_hand = load_run(tmp_path / "out/stage-2").evaluate(tmp_path / "one/test.jsonl")

    assert matrix.scores[1][0] == pytest.approx(by_hand["bits_per_byte"])
    assert matrix.scores[0][0] < 0.8 * matrix.bare[0]  # type: ignore[operator]
    assert matrix.forgetting[0] == pytest.approx(matrix.scores[1][0] - matrix.scores[0][0])  # type: ignore[operator]
    assert all("forgetting_nats" in costs for costs in matrix.costs)


# ---- killed and called again


@pytest.mark.parametrize(
    ("method", "carry"),
    [
        pytest.param("lora", "new_adapter", marks=MATRIX),
        pytest.param("lora", "same_adapter", marks=MATRIX),
        ("full", "full"),
    ],
)
def test_killed_and_called_again_it_goes_on_after_the_last_finished_stage(
    recipes: Callable[..., list[Recipe]], tmp_path: Path, method: str, carry: str
) -> None:
    stages = recipes(method, "A B C", steps=8)
    undisturbed = sequence(stages, carry=carry, out=tmp_path / "undisturbed")
    begun: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        if what == "train" and done == 1:
            begun.append(done)
        if len(begun) == 2 and done == 4 and what == "train":
            raise KeyboardInterrupt

    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        sequence(stages, carry=carry, out=out, progress=stop)
    assert not (out / "stage-2/record.json").exists()
    written = (out / "stage-1/record.json").stat().st_mtime_ns
    begun.clear()
    again = sequence(stages, carry=carry, out=out, progress=lambda d, t, w: begun.append(d)
                     if (d, w) == (1, "train") else None)  # fmt: skip

    assert len(begun) == 2  # stages 2 and 3
    assert (out / "stage-1/record.json").stat().st_mtime_ns == written
    assert again.scores == undisturbed.scores
    assert again.bare == undisturbed.bare


@pytest.mark.matrix
def test_a_folder_of_another_sequence_is_refused(
    recipes: Callable[..., list[Recipe]], tmp_path: Path
) -> None:
    sequence(recipes("full", "A B", steps=1), out=tmp_path)
    with pytest.raises(InvalidInput, match="another sequence"):
        sequence(recipes("full", "B A", steps=1), out=tmp_path)


# ---- what follows from a matrix


def matrix_of(scores: list[list[float | None]], *metrics: Metric) -> StageMatrix:
    size = len(scores)
    return StageMatrix(
        carry="full", backbone="b", methods=("full",) * size, datasets=tuple("ABC"[:size]),
        metrics=metrics or (Metric("accuracy"),) * size, chance=(0.5,) * size, bare=(0.6,) * size,
        scores=tuple(tuple(row) for row in scores), costs=({},) * size,
    )  # fmt: skip


def test_forgetting_and_transfer_of_written_out_scores() -> None:
    """A was best after stage 2: 0.9 - 0.5; B fell 0.8 - 0.7. Since its own stage A fell 0.2."""
    matrix = matrix_of([[0.7, None, None], [0.9, 0.8, None], [0.5, 0.7, 0.6]])

    assert matrix.forgetting == (pytest.approx(0.4), pytest.approx(0.1), None)
    assert matrix.average_forgetting == pytest.approx(0.25)
    assert matrix.backward_transfer == pytest.approx((-0.2 - 0.1) / 2)


def test_where_lower_is_better_a_rise_is_forgetting() -> None:
    metric = Metric("bits_per_byte", higher_is_better=False)
    matrix = matrix_of([[2.0, None], [2.5, 1.5]], metric, metric)

    assert matrix.average_forgetting == pytest.approx(0.5)
    assert matrix.backward_transfer == pytest.approx(-0.5)


def test_there_is_no_average_over_different_metrics() -> None:
    matrix = matrix_of([[0.7, None], [0.6, 0.8]], Metric("accuracy"), Metric("f1"))

    assert matrix.forgetting[0] == pytest.approx(0.1)
    assert matrix.average_forgetting is None
    assert "measured differently" in to_markdown(matrix)


# ---- requests that cannot be honoured


def test_what_cannot_be_carried_on_says_why(recipes: Callable[..., list[Recipe]]) -> None:
    for method, carry, reason in (
        ("prompt_tuning", "new_adapter", "not stacked.*same_adapter"),
        ("lora", "full", "leaves an adapter.*new_adapter or same_adapter"),
        ("full", "same_adapter", "leaves a whole model"),
        ("none", "full", "leaves the backbone as it is"),
        ("linear_probe", None, "leaves the backbone as it is"),
        ("scratch", "full", "forgets what stage 1"),
        ("p_tuning", None, "saves less than it trains"),
        ("peft:p_tuning", "same_adapter", "saves less than it trains"),
        (Continued(then="prompt_tuning"), None, "leaves an adapter, no whole model"),
    ):
        training = {"learning_rate": None} if method == "none" else {}
        with pytest.raises(Unsupported, match=reason):
            settle_carry(recipes(method, "A B", **training), carry)
    for then, carry in (("full", "full"), ("lora", "new_adapter")):
        assert settle_carry(recipes(Continued(then=then), "A B"), None) == carry
    mixed = [recipes("lora", "A")[0], recipes({"name": "lora", "rank": 2}, "B")[0]]
    assert settle_carry(mixed, None) == "new_adapter"
    with pytest.raises(Unsupported, match="other options"):
        settle_carry(mixed, "same_adapter")


def test_what_is_no_sequence_is_refused(recipes: Callable[..., list[Recipe]]) -> None:
    one, two = recipes("full", "A B")
    with pytest.raises(UnknownName, match="Did you mean 'new_adapter'"):
        settle_carry([one, two], "new-adapter")
    with pytest.raises(InvalidInput, match="at least two stages"):
        settle_carry([one], None)
    with pytest.raises(InvalidInput, match="one backbone"):
        settle_carry([one, two.override({"backbone": "twin:gpt2"})], None)


def test_an_adapter_of_another_kind_than_the_method_makes_cannot_go_on(
    recipes: Callable[..., list[Recipe]], tmp_path: Path
) -> None:
    asked = recipes({"name": "lora", "init": "olora"}, "A B", steps=1)
    with pytest.raises(Unsupported, match="is not one that LoRA"):
        sequence(asked, carry="same_adapter", out=tmp_path)


# ---- the command


def test_the_command_prints_and_writes_the_matrix(
    data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["sequence", "--tasks", f"{data['A']},{data['B']}", "--method", "lora", "--steps", "2",
            "--backbone", "twin:bert", "--out", str(tmp_path)]  # fmt: skip
    assert main(argv) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "matrix.json").read_text(encoding="utf-8"))
    table = (tmp_path / "matrix.md").read_text(encoding="utf-8")

    assert written["carry"] == "new_adapter"
    for score in (s for row in written["scores"] for s in row if s is not None):
        assert f"{100 * score:.1f}" in printed
        assert f"{100 * score:.1f}" in table
    for word in ("chance", "bare backbone", "stage 2: B", "Chaudhry", "Lopez-Paz"):
        assert word in printed
        assert word in table
    assert main(["sequence", "--task", data["A"]]) == 2
    assert "--tasks" in capsys.readouterr().err
