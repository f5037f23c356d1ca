"""The data check: each finding planted once, and absent from clean data."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from peftkit.backbones._twin import twin_folder
from peftkit.checks import Finding, check_data, check_rows, warnings_of
from peftkit.checks._split import Split
from peftkit.commands.check import examine
from peftkit.errors import InvalidInput
from peftkit.evaluate import IGNORED
from peftkit.recipe import Recipe
from peftkit.tasks._task import Task, TaskData
from peftkit.tasks.text_classification import TextClassification
from peftkit.tasks.translation import Translation
from peftkit.workbench import Workbench
from toys import write_lines

Rows = list[dict[str, Any]]
VERBS, NOUNS = ("pay", "transfer", "read", "write"), ("row", "column", "matrix", "vector", "axis")
SENTENCES = [f"{verb} the {a} of my {b}" for verb, a, b in product(VERBS, NOUNS, NOUNS) if a != b]
SIZES = {"train": slice(0, 40), "validation": slice(40, 56), "test": slice(56, 80)}


def labelled_rows() -> dict[str, Rows]:
    """80 different sentences of two classes, in three splits."""
    rows = [{"text": text, "label": ("money", "file")[i % 2]} for i, text in enumerate(SENTENCES)]
    return {name: rows[part] for name, part in SIZES.items()}


def translated_rows() -> dict[str, Rows]:
    rows = [{"source": text, "target": text.replace("the", "a")} for text in SENTENCES]
    return {name: rows[part] for name, part in SIZES.items()}


def recipe_on(
    folder: Path, rows: dict[str, Rows], task: Any = "text_classification",
    backbone: str = "twin:bert", method: str = "full", **options: Any,
) -> Recipe:  # fmt: skip
    data = str(write_lines(folder / "data", **rows))
    if isinstance(task, type):
        task = task(data=data, **options)
    else:
        task = {"name": task, "data": data, **options}
    return Recipe(method=method, task=task, backbone=backbone, training={"steps": 2})


def found_in(*args: Any, **options: Any) -> dict[str, Finding]:
    findings, _, _ = examine(recipe_on(*args, **options))
    return {finding.check: finding for finding in findings}


def levels(findings: dict[str, Finding]) -> dict[str, str]:
    """The checks that are not fine."""
    return {check: f.level for check, f in findings.items() if f.level != "ok"}


# ---- rows


def test_clean_data_is_fine_in_every_check(tmp_path: Path) -> None:
    findings = found_in(tmp_path, labelled_rows())
    assert levels(findings) == {"near-duplicates of train": "warning"}  # they are much alike
    assert len(findings) >= 12


def test_rows_of_two_splits_are_counted_with_an_example(tmp_path: Path) -> None:
    rows = labelled_rows()
    for row, (source, label) in {3: (7, "same"), 5: (8, "money"), 9: (8, "file")}.items():
        own = rows["train"][source]
        text = own["text"].upper().replace(" ", "  ")
        rows["test"][row] = {"text": text, "label": own["label"] if label == "same" else label}
    findings = found_in(tmp_path, rows)

    leak = findings["test rows in train"]
    assert (leak.level, leak.count) == ("warning", 3)
    assert leak.text.startswith("3 of 24 test rows (12 %) are also train rows, 2 of them with")
    assert leak.example == "test row 3 is train row 7"
    assert leak.quote == rows["test"][3]["text"].replace("  ", " ")
    assert findings["validation rows in train"].level == "ok"
    assert findings["test rows in validation"].count == 0
    assert findings["repeated rows"].text == (
        "the input of an earlier row of the split: 1 of 24 test rows (4.2 %), 0 with its answer"
    )
    assert findings["contradictory labels"].count == 1
    assert findings["contradictory labels"].example == "train row 8 and test row 9"


def test_leaked_sources_tell_whether_their_references_leaked_too(tmp_path: Path) -> None:
    rows = translated_rows()
    rows["test"][0] = dict(rows["train"][1])
    rows["test"][1] = {**rows["train"][2], "target": ["my own", rows["train"][2]["target"]]}
    rows["test"][2] = {**rows["train"][3], "target": "another"}
    rows["test"] = [
        {**row, "target": row["target"] if isinstance(row["target"], list) else [row["target"]]}
        for row in rows["test"]
    ]
    rows["train"] = [{**row, "target": [row["target"]]} for row in rows["train"]]
    rows["validation"] = [{**row, "target": [row["target"]]} for row in rows["validation"]]
    leak = found_in(tmp_path, rows, "translation", "twin:t5")["test rows in train"]

    assert leak.count == 3
    assert "2 of them with the same answer" in leak.text


def test_contexts_that_splits_share_are_found_under_other_questions(tmp_path: Path) -> None:
    def ask(number: int, context: str) -> dict[str, Any]:
        answers = {"text": ["the"], "answer_start": [context.index("the")]}
        return {"question": f"what is in {number} ?", "context": context, "answers": answers}

    rows = {
        name: [ask(i, text) for i, text in enumerate(SENTENCES[part])]
        for name, part in SIZES.items()
    }
    clean = found_in(tmp_path / "clean", rows, "question_answering")
    rows["test"][4] |= {name: rows["train"][6][name] for name in ("context", "answers")}
    planted = found_in(tmp_path / "planted", rows, "question_answering")

    assert clean["shared context"].level == "ok"
    assert planted["shared context"].level == "warning"
    assert planted["shared context"].count == 1
    assert planted["shared context"].example == "test row 4 and train row 6"
    assert planted["test rows in train"].level == "ok"  # the question is another


def test_near_duplicates_of_training_rows_are_counted_apart_from_equal_ones(tmp_path: Path) -> None:
    rows = {
        "train": [{"text": "how can i transfer the money to my new bank card", "label": "a"},
                  {"text": "please read and write each row", "label": "b"}],
        "validation": [{"text": "plot a matrix", "label": "a"}, {"text": "b c d e", "label": "b"}],
        "test": [{"text": "Can I transfer money to a new card?", "label": "a"},
                 {"text": "How can I transfer the money to my new bank card now?", "label": "a"},
                 {"text": "please read and write each row", "label": "b"}],
    }  # fmt: skip
    near = found_in(tmp_path, rows)["near-duplicates of train"]

    assert near.level == "warning"
    assert near.count == 1  # the first lacks too many of the runs, the last is equal
    assert near.example == "test row 1 is nearly train row 0"


def test_repeated_rows_are_told_where_there_are_many(tmp_path: Path) -> None:
    rows = labelled_rows()
    rows["train"] += rows["train"][:3]
    repeated = found_in(tmp_path, rows)["repeated rows"]

    assert repeated.level == "warning"
    assert "3 of 43 train rows (7 %), 3 with its answer" in repeated.text
    assert repeated.example == "train row 40 is train row 0"


def test_empty_texts_are_counted_in_every_split_and_are_no_duplicates(tmp_path: Path) -> None:
    rows = labelled_rows()
    for split, row in (("train", 3), ("train", 8), ("test", 0)):
        rows[split][row]["text"] = " \n"
    findings = found_in(tmp_path, rows)

    empty = findings["empty texts"]
    assert (empty.level, empty.count, empty.example) == ("warning", 3, "train row 3")
    assert "2 of 40 train rows (5 %) and 1 of 24 test rows (4.2 %)" in empty.text
    assert findings["test rows in train"].count == 0


def test_a_run_without_any_text_stops_before_training(tmp_path: Path) -> None:
    from peftkit.pipeline import run

    rows = labelled_rows()
    rows["train"] = [{**row, "text": ""} for row in rows["train"]]
    recipe = recipe_on(tmp_path, rows)

    with pytest.raises(InvalidInput, match=r"40 of 40 train rows \(train row 0\).*peftkit check"):
        run(recipe, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_classes_that_held_out_rows_lack_are_named(tmp_path: Path) -> None:
    rows = labelled_rows()
    rows["train"][5]["label"] = rows["train"][6]["label"] = "rare"
    classes = found_in(tmp_path, rows)["classes"]

    assert (classes.level, classes.count) == ("warning", 2)
    assert "1 of 3 classes of train rows have no test row: rare" in classes.text
    assert classes.example == "train row 5"


def test_tags_that_the_drawn_rows_lack_are_told_with_the_rows_they_cost(tmp_path: Path) -> None:
    rows = {
        name: [{"tokens": text.split(), "tags": ["B-verb", *["O"] * 5]} for text in SENTENCES[part]]
        for name, part in SIZES.items()
    }
    for split, row in (("train", 39), ("test", 4), ("test", 5)):
        rows[split][row]["tags"][2] = "B-noun"
    drawn = found_in(tmp_path, rows, "token_classification", size=2)
    classes = drawn["classes"]

    assert drawn["rows"].text == "2 train, 16 validation, 24 test"
    assert classes.text == (
        "1 of 3 classes of test rows have no train row (2 of 24 test rows (8.3 %)): B-noun"
    )
    assert classes.example == "test row 4"


def test_tags_that_a_split_lacks_are_named(tmp_path: Path) -> None:
    rows = {
        name: [{"tokens": text.split(), "tags": ["B-verb", *["O"] * 5]} for text in SENTENCES[part]]
        for name, part in SIZES.items()
    }
    assert found_in(tmp_path / "clean", rows, "token_classification")["classes"].level == "ok"
    rows["train"][3]["tags"][2] = "B-noun"
    classes = found_in(tmp_path / "planted", rows, "token_classification")["classes"]

    assert classes.level == "warning"
    assert "1 of 3 classes of train rows have no test row: B-noun" in classes.text
    assert classes.example == "train row 3"


def test_a_class_without_any_training_row_is_an_error(tmp_path: Path) -> None:
    rows = labelled_rows()
    rows["test"][7]["label"] = "unheard"
    findings = found_in(tmp_path, rows)

    assert levels(findings) == {"rows": "error"}
    assert "row 7 of the test split has a label that no training row has" in findings["rows"].text


# ---- what the backbone reads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masking(TextClassification):
    """Loses the labels of some rows."""

    every: int = 1

    def encode(self, *args: Any) -> Any:
        found = super().encode(*args)
        return [
            {**e, "labels": IGNORED if i % self.every == 0 else e["labels"]}
            for i, e in enumerate(found)
        ]


def test_rows_whose_labels_are_all_masked_warn_and_stop_where_they_are_all(tmp_path: Path) -> None:
    some = found_in(tmp_path, labelled_rows(), Masking, every=10)["labels"]
    assert (some.level, some.count, some.example) == ("warning", 4, "train row 0")
    assert some.text == "4 of 40 train rows (10 %) teach nothing: their labels are all masked"

    whole = found_in(tmp_path, labelled_rows(), Masking)["labels"]
    assert (whole.level, whole.count) == ("error", 40)


def test_answers_that_no_window_holds_teach_nothing(tmp_path: Path) -> None:
    def ask(context: str, *answers: str) -> dict[str, Any]:
        starts = [context.index(answer) for answer in answers]
        own = {"text": list(answers), "answer_start": starts}
        return {"question": "what ?", "context": context, "answers": own}

    rows = {name: [ask(text, "the") for text in SENTENCES[part]] for name, part in SIZES.items()}
    long = " ".join(SENTENCES[:5])
    rows["train"][4] = ask(long, long)
    rows["train"][5] = ask(SENTENCES[5])  # has no answer, and is taught so
    labels = found_in(tmp_path, rows, "question_answering", max_length=16)["labels"]

    assert (labels.level, labels.count, labels.example) == ("warning", 1, "train row 4")
    assert "answer stands in no part that is read" in labels.text


def test_texts_that_leave_nothing_to_learn_are_an_error(tmp_path: Path) -> None:
    rows = {name: [{"text": "a"}] * 3 for name in SIZES}
    labels = found_in(tmp_path, rows, "language_modeling", write_llama(tmp_path))["labels"]

    assert labels.level == "error"


def write_llama(folder: Path, template: str | None = None) -> str:
    """A tiny decoder whose tokenizer adds nothing to a text, with a chat template if given."""
    target = folder / "llama"
    if not target.exists():
        shutil.copytree(twin_folder("llama"), target)
        file = target / "tokenizer.json"
        body = json.loads(file.read_text())
        body["post_processor"] = None
        file.write_text(json.dumps(body))
    if template:
        (target / "chat_template.jinja").write_text(template)
    return str(target)


def test_cut_rows_are_counted_exactly(tmp_path: Path) -> None:
    rows = labelled_rows()
    for split, count in (("train", 3), ("test", 2)):
        for row in rows[split][:count]:
            row["text"] += " and the list of names"
    # 6 words of one token each, 2 of the tokenizer's own; long ones have more
    fits = found_in(tmp_path, rows, max_length=24)["cut rows"]
    assert (fits.level, fits.text) == ("ok", "none (max_length 24)")
    cut = found_in(tmp_path, rows, max_length=8)["cut rows"]

    assert cut.level == "warning"
    assert (
        cut.text
        == "3 of 40 train rows (7.5 %) and 2 of 24 test rows (8.3 %) are cut (max_length 8)"
    )
    assert cut.example == "train row 0"


@pytest.mark.parametrize("backbone", ["twin:t5", "twin:llama"])
def test_answers_cut_by_their_own_limit_are_counted(tmp_path: Path, backbone: str) -> None:
    rows = translated_rows()
    for row in rows["train"][4:9]:
        row["target"] += " and the list of names please not"
    limits = {"max_length": 64, "max_new_tokens": 8}
    cut = found_in(tmp_path, rows, "translation", backbone, **limits)["cut rows"]

    assert cut.level == "warning"
    assert cut.text == "5 of 40 train rows (12 %) are cut (max_length 64, max_new_tokens 8)"
    assert cut.example == "train row 4"
    more = {"max_length": 64, "max_new_tokens": 24}
    assert found_in(tmp_path, rows, "translation", backbone, **more)["cut rows"].count == 0


def test_a_beginning_that_text_and_tokenizer_both_write_is_found(tmp_path: Path) -> None:
    rows = labelled_rows()
    assert found_in(tmp_path / "clean", rows)["beginning of text"].level == "ok"
    for row in rows["train"][10:14]:
        row["text"] = f"[CLS] {row['text']}"
    doubled = found_in(tmp_path / "planted", rows)["beginning of text"]

    assert (doubled.level, doubled.count) == ("warning", 4)
    assert doubled.example == "train row 10"


def test_texts_in_letters_that_the_tokenizer_cannot_write_are_found(tmp_path: Path) -> None:
    rows = translated_rows()
    for row in rows["train"][:20]:
        row["target"] = "\u4f60 \u597d " + row["target"]
    targets = found_in(tmp_path / "targets", rows, "translation", "twin:t5")["unknown tokens"]
    assert (targets.level, targets.count) == ("warning", 40)

    rows = labelled_rows()
    rows["train"][7]["text"] = "\u4f60 " * 9
    unknown = found_in(tmp_path / "texts", rows)["unknown tokens"]
    assert (unknown.level, unknown.count, unknown.example) == ("warning", 9, "train row 7")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PadIsEnd(Translation):
    """Pads with the end-of-text token and masks by it, as transformers' collator does."""

    def encode(self, rows: Any, backbone: Any, max_length: int) -> Any:
        backbone.processor.pad_token = backbone.processor.eos_token
        return super().encode(rows, backbone, max_length)

    def collate(self, backbone: Any) -> Any:
        pad = super().collate(backbone)

        def collate(examples: Any) -> Any:
            batch = pad(examples)
            masked = batch["labels"] == backbone.processor.pad_token_id
            return {**batch, "labels": batch["labels"].masked_fill(masked, IGNORED)}

        return collate


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoEnd(Translation):
    """Teaches no end-of-text token."""

    def encode(self, rows: Any, backbone: Any, max_length: int) -> Any:
        end = backbone.processor.eos_token_id
        found = super().encode(rows, backbone, max_length)
        return [{**e, "labels": [IGNORED if v == end else v for v in e["labels"]]} for e in found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainsOnPadding(Translation):
    """Forgets to mask the labels of padding."""

    def collate(self, backbone: Any) -> Any:
        pad = super().collate(backbone)

        def collate(examples: Any) -> Any:
            batch = pad(examples)
            padding = batch["attention_mask"] == 0
            return {**batch, "labels": batch["labels"].masked_fill(padding, 0)}

        return collate


def test_ends_masked_with_the_padding_are_found(tmp_path: Path) -> None:
    rows = translated_rows()
    clean = found_in(tmp_path, rows, "translation", "twin:llama")
    assert clean["padding"].level == clean["end of text"].level == "ok"
    masked = found_in(tmp_path, rows, PadIsEnd, "twin:llama")["padding"]

    assert (masked.level, masked.count) == ("warning", 32)  # one end in each of the batch
    assert "the padding token is the end-of-text token, and both are masked" in masked.text


def test_answers_without_an_end_are_found(tmp_path: Path) -> None:
    ends = found_in(tmp_path, translated_rows(), NoEnd, "twin:llama")["end of text"]

    assert (ends.level, ends.count) == ("warning", 40)
    assert "nothing tells the model when to stop" in ends.text


def test_padding_that_is_trained_on_is_found(tmp_path: Path) -> None:
    rows = translated_rows()
    rows["train"][3]["source"] += " and the list of names"
    padding = found_in(tmp_path, rows, TrainsOnPadding, "twin:llama")["padding"]

    assert padding.level == "warning"
    assert padding.text.startswith("padding is trained on")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chat(TextClassification):
    """Has a chat template of its own."""

    chat_template: str | None = None


OWN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
ALIKE = "{% for each in messages %}<{{ each.role }}>{{ each.content }}{% endfor %}"
OTHER = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("asked", "level"),
    [(None, "ok"), ("own", "ok"), (OWN, "ok"), (ALIKE, "ok"), (OTHER, "warning"),
     ("plain", "warning")],
)  # fmt: skip
def test_a_chat_template_that_writes_otherwise_than_the_tokenizer_s_is_found(
    tmp_path: Path, asked: str | None, level: str
) -> None:
    backbone = write_llama(tmp_path, OWN)
    if asked and "{" in asked:
        (tmp_path / "template.jinja").write_text(asked)
        asked = str(tmp_path / "template.jinja")
    template = found_in(tmp_path, labelled_rows(), Chat, backbone, chat_template=asked)

    assert template["chat template"].level == level
    if asked == "plain":
        assert "User: How are you?" in template["chat template"].quote
    elif level == "warning":
        assert template["chat template"].quote == (
            "'user: How are you?\\nassistant: Well.\\n' instead of "
            "'<user>How are you?<assistant>Well.'"
        )


def test_tasks_without_a_chat_template_are_not_asked_for_one(tmp_path: Path) -> None:
    assert "chat template" not in found_in(tmp_path, labelled_rows())


def test_the_check_reads_no_weights(tmp_path: Path) -> None:
    backbone = Path(write_llama(tmp_path))
    (backbone / "model.safetensors").write_bytes(b"no weights")

    assert found_in(tmp_path, labelled_rows(), backbone=str(backbone))["cut rows"].level == "ok"


def test_rows_are_checked_even_where_the_backbone_cannot_take_the_task(tmp_path: Path) -> None:
    findings = found_in(tmp_path, translated_rows(), "translation", "twin:bert")

    assert findings["tokens"].level == "skipped"
    assert "no head for this task on bert" in findings["tokens"].text
    assert findings["test rows in train"].level == "ok"


# ---- in runs and comparisons


def leaked(folder: Path) -> str:
    rows = labelled_rows()
    rows["test"][:2] = rows["train"][:2]
    return str(write_lines(folder / "data", **rows))


@pytest.mark.usefixtures("libraries")
def test_a_run_notes_what_the_check_warned_of(tmp_path: Path) -> None:
    from peftkit.pipeline import run

    options = {"training": {"steps": 2}, "backbone": "twin:bert"}
    record = run(Recipe(method="lora", task=leaked(tmp_path), **options))  # type: ignore[arg-type]
    note = (
        "2 of 24 test rows (8.3 %) are also train rows, 2 of them with the same answer "
        "(test row 0 is train row 0)"
    )

    assert record.notes == [note]
    assert record.data["checks"] == [{"check": "test rows in train", "count": 2, "note": note}]


def test_what_was_found_is_kept_for_the_same_rows_and_backbone_alone(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    data, kept = leaked(tmp_path), tmp_path / "kept"

    def found(**task: Any) -> list[dict[str, Any]]:
        bench = make_bench("lora", task={"name": "text_classification", "data": data, **task})
        return warnings_of(bench, kept_in=kept)

    first, again = found(), found()
    assert first == again
    assert [each["count"] for each in first] == [2]
    assert len(list(kept.glob("*.checks.json"))) == 1
    found(max_length=16)
    assert len(list(kept.glob("*.checks.json"))) == 2


@pytest.mark.matrix
def test_a_comparison_checks_once_and_its_table_tells_once(tmp_path: Path) -> None:
    from peftkit.reporting.summary import summarise
    from peftkit.study import compare

    records = compare(
        ["tfidf", "lora", "full"], task=leaked(tmp_path), backbone="twin:bert", sizes=["all"],
        training={"steps": 2}, seeds=2, out=tmp_path / "out", workers=1, quiet=True,
    )  # fmt: skip
    (table,) = summarise(records)
    notes = [note for note in table.notes if "test rows" in note]

    assert [record.status for record in records] == ["done"] * 6
    assert len(notes) == 1
    assert notes[0].startswith("2 of 24 test rows (8.3 %) are also train rows")
    # two seeds, each with and without a backbone: once for the two methods that share it
    assert len(list((tmp_path / "out" / "features").glob("*.checks.json"))) == 4


def test_a_comparison_of_data_without_texts_does_not_begin(tmp_path: Path) -> None:
    from peftkit.study import compare

    rows = {name: [{**row, "text": ""} for row in part] for name, part in labelled_rows().items()}
    data = str(write_lines(tmp_path / "data", **rows))

    with pytest.raises(InvalidInput, match="cannot be trained on"):
        compare(["full"], task=data, backbone="twin:bert", out=tmp_path / "out", sizes=["all"],
                quiet=True)  # fmt: skip
    assert not list((tmp_path / "out").glob("records/*"))


def test_the_check_leaves_the_results_of_a_run_as_they_are(
    tmp_path: Path, make_bench: Callable[..., Workbench]
) -> None:
    import torch

    def logits(*, checked: bool) -> torch.Tensor:
        bench = make_bench("full", task={"data": leaked(tmp_path)})
        if checked:
            check_data(bench)
        predictor = bench.recipe.method.fit(bench)
        return torch.from_numpy(predictor.outputs(bench.data.test))

    assert torch.equal(logits(checked=True), logits(checked=False))


# ---- what is known of the data sets that several checkouts share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts(Task):
    """Texts made of several columns, or of the turns of a conversation."""

    columns: tuple[str, ...] = ()

    def load(self, *, seed: int, progress: Any = None) -> TaskData:
        return self.drawn(self.splits(progress), seed=seed)

    def texts(self, rows: Any) -> list[str]:
        def plain(value: Any) -> str:
            turns = value if isinstance(value, list) else [{"content": value}]
            return "\n".join(turn["content"] for turn in turns)

        each = [[plain(value) for value in rows[name][:]] for name in self.columns]
        return ["\n".join(row).strip() for row in zip(*each, strict=True)]


def known_tasks(data: Path) -> dict[str, Task | dict[str, Any]]:
    return {
        "banking77": {"name": "text_classification"},
        "clinc150": {"name": "text_classification"},
        "dpo_demo_en_zh": Prompts(data=str(data / "dpo_demo_en_zh"), columns=("prompt",)),
        "gsm8k": Prompts(data=str(data / "gsm8k"), columns=("question",)),
        "scitldr": {"name": "summarization"},
        "self_instruct_human": Prompts(
            data=str(data / "self_instruct_human"), columns=("instruction", "input")
        ),
        "sign_digits": {"name": "image_classification"},
        "squad_small": {"name": "question_answering"},
        "tatoeba_en_zh": {"name": "translation", "target_column": "zh"},
        "wnut17": {"name": "token_classification"},
    }


@pytest.mark.parametrize("name", list(known_tasks(Path())))
def test_the_leakage_that_is_known_of_shared_data_is_found(name: str, shared: Path) -> None:
    folder = shared / "data" / name
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    reported = re.search(r"duplicates/leakage.*?: (\{.*\})", readme)
    assert reported
    known = json.loads(reported[1])
    task: Any = known_tasks(shared / "data")[name]
    if isinstance(task, dict):
        task = Recipe(method="full", task={**task, "data": str(folder)}).task
    data = task.load(seed=0)
    findings = {finding.check: finding for finding in check_rows(task, data)}

    # A validation split that the source lacks was carved from the training rows: those of both are
    # what was called train when it was counted.
    carved = any(note.startswith("validation carved") for note in data.notes)
    splits = {n: Split(n, task, getattr(data, n)) for n in ("train", "validation", "test")}
    train = splits["train"].keys + (splits["validation"].keys if carved else [])
    assert len(train) - len(set(train)) == known["dup_within_train"]
    in_train = sum(key in set(train) for key in splits["test"].keys)
    assert in_train == known["test_rows_seen_in_train"]
    in_validation = findings["test rows in validation"].count
    if not carved:
        assert findings["test rows in train"].count == known["test_rows_seen_in_train"]
        assert findings["validation rows in train"].count == known["validation_rows_seen_in_train"]
        assert in_validation == known["test_rows_seen_in_validation"]
    else:
        both = findings["test rows in train"].count + in_validation
        assert in_train <= both <= 2 * in_train
    if "inputs_with_conflicting_labels" in known:
        conflicting = findings["contradictory labels"].count
        assert conflicting == known["inputs_with_conflicting_labels"]
