"""What the contract of tasks needs to know of each: toy data, right and constant answers, sums.

A case holds for a class and all classes derived from it. A task without one fails its contract and
says so: add the case here.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from peftkit import parts
from peftkit.tasks import Task
from peftkit.tasks._classification import Classification
from peftkit.tasks._written import WrittenTask
from peftkit.tasks.instruction import Instruction
from peftkit.tasks.language_modeling import LanguageModeling
from peftkit.tasks.multi_label_classification import MultiLabelClassification
from peftkit.tasks.preference import Preference
from peftkit.tasks.question_answering import QuestionAnswering
from peftkit.tasks.text_regression import TextRegression
from peftkit.tasks.token_classification import TokenClassification

Answers = Callable[[Task, Dataset], Any]
Sums = tuple[Any, Dataset, dict[str, float]]
"""What a model answered to some rows, and what the metrics must be."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a kind of task is tested.

    Attributes:
        options: The task's options, `data` among them, given what fixtures there are.
        backbones: Twins, or fixtures that make one, on which padding is tried.
        right: Right answers to rows, as `Task.join` or `Task.write` make them.
        constant: Answers that do not depend on what is read, the best of them.
        best: The metric of right answers.
        worked_out: A case with metrics that another implementation, or a pencil, has found.
    """

    options: Callable[[type[Task], pytest.FixtureRequest], dict[str, Any]]
    backbones: Callable[[type[Task]], tuple[str, ...]]
    right: Answers
    constant: Answers
    worked_out: Callable[[type[Task]], Sums]
    best: Callable[[type[Task]], float] = lambda cls: 1.0


def case_of(name: str) -> Case:
    """The case of a task, by its class or the nearest that it is derived from."""
    cls = parts.load("task", name)
    found = next((CASES[each] for each in cls.__mro__ if each in CASES), None)
    if found is None:
        pytest.fail(
            f"the contract knows no case of {name}: add one for {cls.__name__}, or for a class "
            "that it is derived from, to CASES in tests/task_cases.py"
        )
    return found


def padded() -> list[Any]:
    """Every task with each backbone that padding is tried on, as parameters of a test."""
    pairs = []
    for name in parts.find("task"):
        cls = parts.load("task", name)
        known = any(each in CASES for each in cls.__mro__)  # else the test itself says so
        pairs += [(name, each) for each in (case_of(name).backbones(cls) if known else ("none",))]
    return [pytest.param(*pair, id="-".join(pair)) for pair in pairs]


def folder(fixture: str) -> Callable[[type[Task], pytest.FixtureRequest], dict[str, Any]]:
    """Options of a task whose toy data are made by a fixture."""
    return lambda _, request: {"data": str(request.getfixturevalue(fixture))}


def on(*backbones: str) -> Callable[[type[Task]], tuple[str, ...]]:
    return lambda _: backbones


# ---- one class


def certain(codes: list[int], num_classes: int) -> np.ndarray:
    """Logits that leave no doubt."""
    return 10.0 * np.eye(num_classes)[codes]


def classes(task: Task, rows: Dataset) -> np.ndarray:
    return certain(rows["label"][:], max(rows["label"]) + 1)


def commonest_class(task: Task, rows: Dataset) -> np.ndarray:
    ((code, _),) = Counter(rows["label"][:]).most_common(1)
    return certain([code] * len(rows), max(rows["label"]) + 1)


def worked_out_classes(_: type[Task]) -> Sums:
    """Confident by .7, .6, .5 and .5; the third is wrong. F1 and correlation: scikit-learn."""
    from sklearn.metrics import f1_score, matthews_corrcoef

    label, predicted = [0, 1, 2, 1], [0, 1, 0, 1]
    probabilities = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]]
    return np.log(probabilities), Dataset.from_dict({"label": label}), {
        "accuracy": 3 / 4,
        "macro_f1": f1_score(label, predicted, average="macro"),
        "matthews_correlation": matthews_corrcoef(label, predicted),
        "log_loss": -np.log([0.7, 0.6, 0.2, 0.5]).mean(),
        "calibration_error": (0.3 + 0.4 + 0.0) / 4,  # .5 right and .5 wrong share a bin
    }  # fmt: skip


def labelled_options(cls: type[Task], request: pytest.FixtureRequest) -> dict[str, Any]:
    if cls.inputs == "text":
        return {"data": str(request.getfixturevalue("toy_folder"))}
    options: dict[str, Any] = request.getfixturevalue("seen_and_heard")
    return dict(options[f"{cls.inputs}_classification"])


def readers(cls: type[Task]) -> tuple[str, ...]:
    return {"text": ("bert", "gpt2"), "image": ("vit",), "audio": ("wav2vec2", "whisper")}[
        cls.inputs
    ]


# ---- several labels, and numbers


def label_sets(task: Task, rows: Dataset) -> np.ndarray:
    width = 1 + max(label for each in rows["label"] for label in each)
    return np.asarray(
        [[10.0 if k in each else -10 for k in range(width)] for each in rows["label"]]
    )


def best_set(task: Task, rows: Dataset) -> np.ndarray:
    """Of all sets of labels the one that scikit-learn likes best for every row."""
    from sklearn.metrics import f1_score

    there = label_sets(task, rows) > 0
    sets = [np.asarray(s, dtype=bool) for s in itertools.product((0, 1), repeat=there.shape[1])]

    def score(one: np.ndarray) -> float:
        every = np.tile(one, (len(there), 1))
        return float(f1_score(there, every, average="micro", zero_division=0.0))

    return np.where(np.tile(max(sets, key=score), (len(there), 1)), 10.0, -10.0)


def worked_out_sets(_: type[Task]) -> Sums:
    """2 of 4 given are right, of 4 that are there; each label: 1, 1/2, 0, and one is nowhere."""
    given = [[0], [1, 2], [], [1]]
    logits = np.asarray([[2.0 if k in each else -2.0 for k in range(4)] for each in given])
    rows = Dataset.from_dict({"label": [[0, 1], [1], [], [2]]})
    return logits, rows, {"micro_f1": 1 / 2, "macro_f1": 1 / 2, "subset_accuracy": 1 / 4}


def numbers(task: Task, rows: Dataset) -> np.ndarray:
    return np.asarray(rows["label"][:])


def worked_out_numbers(_: type[Task]) -> Sums:
    """Around their means (-1.5, -.5, .5, 1.5) and (-1.75, .25, -.75, 2.25); ranks differ by 1."""
    from scipy.stats import pearsonr, spearmanr

    label, predicted = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 5.0]
    assert pearsonr(label, predicted).statistic == pytest.approx(5.5 / math.sqrt(5 * 8.75))
    assert spearmanr(label, predicted).statistic == pytest.approx(1 - 6 * 2 / (4 * 15))
    return np.asarray(predicted), Dataset.from_dict({"label": label}), {
        "pearson": 5.5 / math.sqrt(5 * 8.75), "spearman": 0.8, "mean_squared_error": 3 / 4,
    }  # fmt: skip


# ---- words, and spans of a text


def tags(task: Task, rows: Dataset) -> list[np.ndarray]:
    width = len(rows.features["label"].feature.names)
    return [certain(each, width) for each in rows["label"]]


def nothing_tagged(task: Task, rows: Dataset) -> list[np.ndarray]:
    names = rows.features["label"].feature.names
    return [certain([names.index("O")] * len(each), len(names)) for each in rows["label"]]


def worked_out_tags(_: type[Task]) -> Sums:
    """4 spans are found, 3 are there, 2 are right: so says seqeval."""
    from peftkit.data.tags import _coded

    names = ["O", "B-a", "I-a", "B-b", "I-b"]
    there = ["B-a I-a O B-b", "O O", "B-b I-b"]
    found = ["B-a I-a O B-a", "B-a O", "B-b I-b"]
    rows = _coded([t.split() for t in there], [t.split() for t in there], names, "here")
    logits = [certain([names.index(tag) for tag in text.split()], 5) for text in found]
    return logits, rows, {
        "f1": 4 / 7, "precision": 2 / 4, "recall": 2 / 3, "f1_strict": 4 / 7,
        "word_accuracy": 6 / 8, "f1_a": 2 / 4, "f1_b": 2 / 3,
    }  # fmt: skip


def spans(task: Task, rows: Dataset) -> list[tuple[float, int, int]]:
    found = []
    for each in rows["answers"]:
        first = each["answer_start"][0] if each["text"] else 0
        found.append((1.0, first, first + len(each["text"][0])) if each["text"] else (-1.0, 0, 0))
    return found


def no_span(task: Task, rows: Dataset) -> list[tuple[float, int, int]]:
    return [(-1.0, 0, 0)] * len(rows)


def worked_out_spans(_: type[Task]) -> Sums:
    """An article does not count; of "in 1990 or 1991" one word of four is right, and all of one."""
    contexts = ["the Denver Broncos won", "in 1990 or 1991"]
    answers = [
        {"text": ["Denver Broncos"], "answer_start": [4]}, {"text": ["1990"], "answer_start": [3]}
    ]  # fmt: skip
    rows = Dataset.from_dict({"question": ["?", "?"], "context": contexts, "answers": answers})
    return [(1.0, 0, 18), (1.0, 0, 15)], rows, {"f1": (1 + 2 / 5) / 2, "exact_match": 1 / 2}


# ---- what is written, and what comes next

SOURCES = (
    "data", "plot the data", "a row of the table", "type of the file",
    "return the list of names and the type of the data of a row of the table and plot it",
)  # fmt: skip
PAIRS = [
    {"source": source, "target": f"{word} is what there is to say here"}
    for source, word in zip(SOURCES, "abcde", strict=True)
]


def references(task: Task, rows: Dataset) -> list[str]:
    return [each[0] for each in rows["targets"]]


def silence(task: Task, rows: Dataset) -> list[str]:
    return [""] * len(rows)


def pairs_options(cls: type[Task], request: pytest.FixtureRequest) -> dict[str, Any]:
    columns = {"source_column": "source", "target_column": "target", "max_new_tokens": 6}
    return {"data": str(request.getfixturevalue("pairs_folder")), **columns}


def worked_out_texts(cls: type[Task]) -> Sums:
    """The metric by sacrebleu or rouge-score themselves; of phonemes 1 of 10 is wrong."""
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    if cls.metric == "phoneme_error_rate":
        rows = Dataset.from_dict({"text": ["x", "y"], "targets": [["abc"], ["abcdefg"]]})
        return ["abd", "abcdefg"], rows, {"phoneme_error_rate": 1 / 10, "exact_match": 1 / 2}
    written = ["the cat sat on a mat .", "dogs bark at night , often", "nothing at all"]
    true = ["the cat sat on the mat .", "dogs often bark at night", "nothing at all"]
    rows = Dataset.from_dict({"text": ["x"] * 3, "targets": [[each] for each in true]})
    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    each = [rouge.score(t, w)["rougeL"].fmeasure for t, w in zip(true, written, strict=True)]
    known = {
        "bleu": sacrebleu.corpus_bleu(written, [true]).score,
        "chrf": sacrebleu.corpus_chrf(written, [true]).score,
        "ter": sacrebleu.corpus_ter(written, [true]).score,
        "rougeL": 100 * float(np.mean(each)),
    }
    if cls.metric not in known:
        pytest.fail(f"no other implementation of {cls.metric} is named in tests/task_cases.py")
    return written, rows, known


def predicted_surely(task: Task, rows: Dataset) -> np.ndarray:
    sizes = [len(text.encode()) for text in rows["text"]]
    return np.asarray([[0.0, max(1, size // 4), size] for size in sizes])


def every_byte_alike(task: Task, rows: Dataset) -> np.ndarray:
    sums = predicted_surely(task, rows)
    sums[:, 0] = sums[:, 2] * math.log(256)
    return sums


def worked_out_nats(_: type[Task]) -> Sums:
    """7 nats over 10 tokens and 20 bytes."""
    sums, rows = [[4.0, 6, 12], [3.0, 4, 8]], Dataset.from_dict({"text": ["a", "b"]})
    return np.asarray(sums), rows, {
        "loss": 0.7, "perplexity": math.exp(0.7), "bits_per_byte": 7 / 20 / math.log(2)
    }  # fmt: skip


# ---- what follows a prompt, and which of two answers is better

PROMPTS = [
    {"prompt": source, "completion": f"{word} name", "chosen": word, "rejected": f"{word} row"}
    for source, word in zip(SOURCES, ("list", "file", "type", "data", "plot"), strict=True)
]


def prompt_options(cls: type[Task], request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"data": str(request.getfixturevalue("prompts_folder")), "max_new_tokens": 4}


def likely(task: Task, rows: Dataset) -> list[tuple[float, float, str]]:
    return [(0.0, float(len(text.split())), text) for text in rows["completion"]]


def unlikely(task: Task, rows: Dataset) -> list[tuple[float, float, str]]:
    return [(9.0 * tokens, tokens, "") for _, tokens, _ in likely(task, rows)]


def worked_out_completions(_: type[Task]) -> Sums:
    """6 nats over 4 tokens; 72 behind the mark is right, 71 is not; of words 4 of 5 are alike."""
    true = ["half is 36 #### 72", "half is 36 #### 72"]
    rows = Dataset.from_dict({"prompt": ["x", "y"], "completion": true})
    outputs = [(4.0, 3.0, "half is 36 #### 72"), (2.0, 1.0, "half is 36 #### 71")]
    found = {"completion_loss": 1.5, "exact_match": 0.5, "rougeL": (100 + 75) / 2}
    return outputs, rows, found


def preferred(task: Task, rows: Dataset) -> list[np.ndarray]:
    return [np.asarray([1.0, -1.0])] * len(rows)


def as_before(task: Task, rows: Dataset) -> list[np.ndarray]:
    return [np.asarray([0.0, 0.0])] * len(rows)


def worked_out_rewards(_: type[Task]) -> Sums:
    """One right by 2, one wrong by 1, one tie."""
    rewards = [np.asarray(pair) for pair in ([1.0, -1.0], [0.0, 1.0], [0.5, 0.5])]
    rows = Dataset.from_dict({"prompt": ["x", "y", "z"]})
    losses = [math.log1p(math.exp(-margin)) for margin in (2.0, -1.0, 0.0)]
    return rewards, rows, {
        "preference_accuracy": 1 / 2, "reward_margin": 1 / 3, "loss": sum(losses) / 3,
    }  # fmt: skip


CASES: dict[type, Case] = {
    Classification: Case(
        options=labelled_options, backbones=readers,
        right=classes, constant=commonest_class, worked_out=worked_out_classes,
    ),
    MultiLabelClassification: Case(
        options=folder("several_folder"), backbones=on("bert", "llama"),
        right=label_sets, constant=best_set, worked_out=worked_out_sets,
    ),
    TextRegression: Case(
        options=folder("valued_folder"), backbones=on("bert", "llama"),
        right=numbers, constant=lambda _, rows: np.full(len(rows), 1100.0),
        worked_out=worked_out_numbers,
    ),
    TokenClassification: Case(
        options=folder("tagged_folder"), backbones=on("bert"),
        right=tags, constant=nothing_tagged, worked_out=worked_out_tags,
    ),
    QuestionAnswering: Case(
        options=folder("half_asked_folder"), backbones=on("bert"),
        right=spans, constant=no_span, worked_out=worked_out_spans,
    ),
    WrittenTask: Case(
        options=pairs_options, backbones=on("t5", "gpt2"),
        right=references, constant=silence, worked_out=worked_out_texts,
        best=lambda cls: 100.0 if cls.higher_is_better else 0.0,
    ),
    Instruction: Case(
        options=prompt_options, backbones=on("gpt2", "llama"),
        right=likely, constant=unlikely, worked_out=worked_out_completions,
        best=lambda _: 0.0,
    ),
    Preference: Case(
        options=prompt_options, backbones=on("gpt2", "llama"),
        right=preferred, constant=as_before, worked_out=worked_out_rewards,
    ),
    LanguageModeling: Case(
        options=folder("plain_folder"), backbones=on("gpt2", "masked"),
        right=predicted_surely, constant=every_byte_alike, worked_out=worked_out_nats,
        best=lambda _: 0.0,
    ),
}  # fmt: skip
