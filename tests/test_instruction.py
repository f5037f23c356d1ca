"""Instruction tuning: rows, what is learned of them, what is cut, shots, packing, scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from peftkit import Recipe, parts, run
from peftkit.data import known_prompts
from peftkit.errors import InvalidInput, Unsupported
from peftkit.evaluate import IGNORED
from peftkit.saved import load_run
from peftkit.tasks.instruction import final_number, same_answer
from peftkit.workbench import Workbench
from toys import prompted_rows, write_lines

pytestmark = pytest.mark.usefixtures("libraries")
TASK = parts.load("task", "instruction")
USER = {"role": "user", "content": "write list name"}
ASSISTANT = {"role": "assistant", "content": "name list"}
SYSTEM = {"role": "system", "content": "return the row"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = {s: prompted_rows(n, seed=i) for i, (s, n) in
            enumerate({"train": 16, "validation": 3, "test": 5}.items())}  # fmt: skip
    return write_lines(tmp_path_factory.mktemp("instruct"), **rows)


@pytest.fixture
def bench(make_bench: Callable[..., Workbench], folder: Path) -> Callable[..., Workbench]:
    def make(
        method: Any = "none", backbone: str = "twin:llama", *, training: Any = None, **task: Any
    ) -> Workbench:
        options = {"data": str(folder), "max_length": 64, "max_new_tokens": 6, **task}
        return make_bench(method, backbone, task={"name": "instruction", **options},
                          **(training or {}))  # fmt: skip

    return make


def known(**columns: Any) -> list[tuple[Any, str]]:
    rows = known_prompts(Dataset.from_dict(columns), source="rows")
    return list(zip(rows["prompt"][:], rows["completion"][:], strict=True))


# ---- rows


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"prompt": ["a b"], "completion": ["c"]}, ("a b", "c")),
        ({"question": ["a b"], "answer": ["c"], "final": ["d"]}, ("a b", "c")),
        ({"instruction": ["a"], "input": ["b"], "output": ["c"]}, ("a\n\nb", "c")),
        ({"instruction": ["a"], "input": [""], "output": ["c"]}, ("a", "c")),
        ({"messages": [[SYSTEM, USER, ASSISTANT]]}, ([SYSTEM, USER], "name list")),
        ({"prompt": [[USER]], "completion": [[ASSISTANT]]}, ([USER], "name list")),
        (
            {"conversations": [[{"from": "human", "value": "write list name"},
                                {"from": "gpt", "value": "name list"}]]},
            ([USER], "name list"),
        ),
    ],
    ids=["prompt", "question", "input", "no-input", "messages", "two-chats", "conversations"],
)  # fmt: skip
def test_rows_of_every_shape_become_prompt_and_completion(
    columns: dict[str, Any], expected: tuple[Any, str]
) -> None:
    assert known(**columns) == [expected]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"prompt": ["a", "b"], "completion": ["c", " "]}, "row 1 .* empty in column 'completion'"),
        ({"question": ["a", ""], "answer": ["c", "d"]}, "row 1 .* empty in column 'question'"),
        ({"messages": [[USER, ASSISTANT], [USER]]}, "row 1 .* does not end with one answer"),
        ({"messages": [[ASSISTANT]]}, "row 0 .* no chat in column 'messages'"),
        ({"text": ["a"]}, "none of the usual columns"),
    ],
)
def test_a_row_that_teaches_nothing_is_named(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        known(**columns)


def test_messages_need_a_template_and_the_errors_say_which(
    tmp_path: Path, bench: Callable[..., Workbench]
) -> None:
    talks = [{"messages": [USER, ASSISTANT]}] * 12
    data = str(write_lines(tmp_path / "chat", train=talks, test=talks))
    with pytest.raises(InvalidInput, match=r"no chat template is named.*--task.chat-template own"):
        bench(data=data)
    here = bench(data=data, chat_template="own")
    with pytest.raises(InvalidInput, match=r"has no chat template.*--task.chat-template plain"):
        here.recipe.task.remarks(here.data, here.backbone)
    with pytest.raises(InvalidInput, match="no such chat template"):
        TASK(data=data, chat_template="chatml")
    here = bench(data=data, chat_template="plain")
    prompt, answer = parted(here, here.encode(here.data.train)[0])

    assert prompt == "[CLS] user [UNK] write list name assistant [UNK]"  # it knows no colons
    assert answer == "name list [SEP]"


def test_a_template_that_refuses_a_row_names_it(
    tmp_path: Path, bench: Callable[..., Workbench]
) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text("{{ raise_exception('no system, please') }}")
    here = bench(chat_template=str(template))
    with pytest.raises(InvalidInput, match=r"cannot write row 0.*no system, please"):
        here.encode(here.data.train)


# ---- what is learned


def parted(here: Workbench, example: dict[str, Any]) -> tuple[str, str]:
    """What is read only, and what is learned."""

    def decode(ids: list[int]) -> str:
        return str(here.backbone.processor.decode(ids)).replace(" ##", "")

    learned = [label for label in example["labels"] if label != IGNORED]
    read = example["input_ids"][: len(example["input_ids"]) - len(learned)]
    return decode(read), decode(learned)


def test_only_the_completion_is_learned_and_its_end(bench: Callable[..., Workbench]) -> None:
    here = bench()
    rows = here.data.train
    for example, prompt, completion in zip(
        here.encode(rows), rows["prompt"], rows["completion"], strict=True
    ):
        read, learned = parted(here, example)
        ids = example["input_ids"]

        assert read == f"[CLS] {prompt}"
        assert learned == f"{completion} [SEP] [SEP]"  # its end, and what this tokenizer adds
        assert all(
            m in (IGNORED, n) for m, n in zip(example["labels"], [*ids[1:], None], strict=True)
        )


def test_a_template_stands_around_the_prompt(bench: Callable[..., Workbench]) -> None:
    here = bench(template="how to {prompt} ?")
    prompt = here.data.train["prompt"][0]

    assert parted(here, here.encode(here.data.train)[0])[0] == f"[CLS] how to {prompt} ?"
    with pytest.raises(InvalidInput, match="no place for the prompt"):
        TASK(data="x", template="how?")


@pytest.mark.parametrize("backbone", ["twin:gpt2", "twin:llama"])
def test_the_metric_is_the_mean_over_tokens_of_what_the_model_says(
    bench: Callable[..., Workbench], backbone: str
) -> None:
    here = bench(backbone=backbone, num_written=0)
    predictor = here.recipe.method.fit(here)
    kept, metrics = here.recipe.task.score(predictor.outputs(here.data.test), here.data.test)
    nats: list[float] = []
    for example in here.encode(here.data.test):
        ids = torch.tensor([example["input_ids"]])
        with torch.inference_mode():
            said = here.backbone.model(input_ids=ids).logits[0].log_softmax(-1)
        nats += [-float(said[i, n]) for i, n in enumerate(example["labels"]) if n != IGNORED]

    assert metrics == {"completion_loss": pytest.approx(sum(nats) / len(nats), rel=1e-5)}
    assert sum(kept["tokens"]) == len(nats)
    scores = here.recipe.task.item_scores(kept)
    assert scores.mean() == pytest.approx(metrics["completion_loss"], abs=1e-4)


# ---- what is too long


def test_long_rows_are_cut_counted_and_named_none_is_dropped(tmp_path: Path, folder: Path) -> None:
    rows = prompted_rows(9, seed=0)
    rows[4]["prompt"] = "write " + "list " * 90
    rows[6]["completion"] = "name " * 90
    rows[8] |= {"prompt": "write " + "list " * 27, "completion": "name"}
    data = str(
        write_lines(tmp_path / "long", train=[*rows, rows[0]], validation=rows[:2], test=rows)
    )
    task = {"name": "instruction", "data": data, "max_length": 32, "max_new_tokens": 6}
    recipe = Recipe(method="lora", task=task, backbone="twin:llama", training={"steps": 1})
    here = Workbench(recipe, recipe.task.load(seed=0), tmp_path)
    examples = here.encode(here.data.test)
    record = run(recipe)

    assert len(examples) == 9
    assert max(len(e["input_ids"]) for e in examples) == 32
    assert all(any(label != IGNORED for label in e["labels"]) for e in examples)
    assert parted(here, examples[4])[1] == f"{rows[4]['completion']} [SEP] [SEP]"
    bos = here.backbone.processor.bos_token_id
    assert examples[4]["input_ids"][0] == bos
    assert len(examples[8]["input_ids"]) == 32
    assert examples[8]["_asked"] == [bos, *examples[8]["input_ids"][4 : 32 - 3]]
    assert any("1 of 9 test prompts lost their beginning where" in n and "row 8" in n
               for n in record.notes)  # fmt: skip
    for split in ("10 train", "9 test"):
        assert any(f"1 of {split} prompts lost their beginning," in n and "row 4" in n
                   for n in record.notes)  # fmt: skip
        assert any(f"1 of {split} completions lost their end" in n and "row 6" in n
                   for n in record.notes)  # fmt: skip
    with pytest.raises(InvalidInput, match="no room for the prompt"):
        run(recipe.override({"task.max_new_tokens": 30}))


# ---- several rows in a sequence


@pytest.mark.parametrize("backbone", ["twin:gpt2", "twin:llama"])
def test_packed_rows_do_not_see_each_other(bench: Callable[..., Workbench], backbone: str) -> None:
    here = bench("full", backbone, packing=True)
    rows, task = here.encode(here.data.train), here.recipe.task
    packed = task.packed(rows, 64, virtual_tokens=0)
    model = here.backbone.model.eval()

    def mean_loss(examples: list[Any]) -> float:
        batch = here.collate(examples)
        labels = batch.pop("labels")
        with torch.inference_mode():
            return float(task.loss(model(**batch).logits, labels, here.data))

    assert len(packed) < len(rows) / 2
    assert sum(len(e["input_ids"]) for e in packed) == sum(len(e["input_ids"]) for e in rows)
    assert mean_loss(packed) == pytest.approx(mean_loss(rows), rel=1e-5)
    for example in packed:
        del example["position_ids"]
    assert mean_loss(packed) != pytest.approx(mean_loss(rows), rel=2e-4)


def test_packing_trains_and_refuses_virtual_tokens(bench: Callable[..., Workbench]) -> None:
    here = bench("lora", packing=True, training={"steps": None, "epochs": 1.0, "batch_size": 1})
    here.recipe.method.fit(here)
    packed = here.recipe.task.packed(here.encode(here.data.train), 64, virtual_tokens=0)

    assert here.trained is not None
    assert here.trained.steps == len(packed) < len(here.data.train)
    here = bench("prompt_tuning", packing=True)
    with pytest.raises(Unsupported, match=r"leave --task.packing out"):
        here.recipe.method.fit(here)


# ---- shots


def test_shots_stand_before_each_prompt_with_their_answers(
    bench: Callable[..., Workbench], tmp_path: Path
) -> None:
    zero, two, three = (bench({"name": "none", "shots": n}, max_length=120) for n in (0, 2, 3))
    before, after, more = (
        b.recipe.task.score(b.recipe.method.fit(b).outputs(b.data.test), b.data.test)[0]["nats"]
        for b in (zero, two, three)
    )
    assert two.shots is not None
    assert three.shots is not None
    shown = " ".join(f"{s['prompt']} {s['completion']}" for s in two.shots)
    prompt, learned = parted(two, two.encode(two.data.test)[0])

    assert prompt == f"[CLS] {shown} {two.data.test['prompt'][0]}"
    assert learned == parted(zero, zero.encode(zero.data.test)[0])[1]
    assert len({str(before), str(after), str(more)}) == 3
    assert three.shots["prompt"][:2] == two.shots["prompt"][:]  # nested
    assert set(two.shots["prompt"]) <= set(two.data.train["prompt"])
    many = bench({"name": "none", "shots": 17})
    with pytest.raises(InvalidInput, match="fewer training rows than shots"):
        many.recipe.method.fit(many)


def test_shots_of_a_chat_stand_behind_what_the_system_says(
    tmp_path: Path, bench: Callable[..., Workbench]
) -> None:
    talks = [{"messages": [SYSTEM, USER, ASSISTANT]}] * 12
    data = str(write_lines(tmp_path / "chat", train=talks, test=talks))
    here = bench({"name": "none", "shots": 1}, data=data, chat_template="plain", max_length=120)
    here.recipe.method.fit(here)
    prompt, _ = parted(here, here.encode(here.data.test)[0])

    assert prompt == (
        "[CLS] system [UNK] return the row user [UNK] write list name assistant [UNK] name list "
        "[SEP] user [UNK] write list name assistant [UNK]"
    )


def test_shots_are_kept_and_only_go_before_prompts(
    tmp_path: Path, folder: Path, make_bench: Callable[..., Workbench]
) -> None:
    task = {"name": "instruction", "data": str(folder), "max_length": 120, "max_new_tokens": 4}
    recipe = Recipe(method={"name": "none", "shots": 2}, task=task, backbone="twin:llama", seed=4)
    record = run(recipe, tmp_path / "run")
    loaded = load_run(tmp_path / "run")

    found = loaded.evaluate(folder / "test.jsonl")
    assert found == {**record.metrics["test"], "num_rows": 5}
    assert loaded.predict(["write list"])[0].keys() == {"answer", "text"}
    here = make_bench({"name": "none", "shots": 2})
    with pytest.raises(Unsupported, match=r"leave --method\.shots out"):
        here.recipe.method.fit(here)


# ---- how well


@pytest.mark.parametrize(
    ("predicted", "true", "equal"),
    [
        ("... so it is\n#### 1,024", "2 * 512 = <<2*512=1024>>1024\n#### 1024", 1.0),
        ("#### 72.0", "#### 72", 1.0),
        ("#### -3", "#### 3", 0.0),
        ("the answer is 72", "#### 72", 0.0),  # as in the paper: no mark, no answer
        ("#### 7 ... no: #### 8.", "#### 8", 1.0),
        ("The Moon!", "moon", 1.0),
        ("72", "moon", 0.0),
    ],
)
def test_the_number_behind_the_mark_is_the_answer(predicted: str, true: str, equal: float) -> None:
    assert same_answer(predicted, true) == equal
    assert final_number("1.2.3 #### 1.2.3") is None


def test_written_answers_are_compared_with_the_true_ones(folder: Path) -> None:
    task = TASK(data=str(folder), num_written=3)
    rows = task.load(seed=0).test
    right = [(2.0, 4.0, text if i < 3 else None) for i, text in enumerate(rows["completion"])]
    kept, best = task.score(right, rows)
    _, worst = task.score([(2.0, 4.0, "pay")] * 5, rows)

    assert best == {"completion_loss": 0.5, "exact_match": 1.0, "rougeL": pytest.approx(100.0)}
    assert worst == {"completion_loss": 0.5, "exact_match": 0.0, "rougeL": 0.0}
    assert [text is None for text in kept["predicted"]] == [False] * 3 + [True] * 2


def test_what_is_written_is_the_likeliest_token_each_time(bench: Callable[..., Workbench]) -> None:
    here = bench(num_written=2)
    predictor = here.recipe.method.fit(here)
    _, _, text = predictor.outputs(here.data.test)[0]
    ids = list(here.encode(here.data.test)[0]["_asked"])
    start, model, tokenizer = len(ids), here.backbone.model, here.backbone.processor
    while len(ids) < start + 6 and ids[-1] != tokenizer.eos_token_id:
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))

    assert text == tokenizer.decode(ids[start:], skip_special_tokens=True).strip()
    assert text


def test_a_run_has_costs_and_answers_prompts(tmp_path: Path, folder: Path) -> None:
    task = {"name": "instruction", "data": str(folder), "max_length": 64, "max_new_tokens": 6}
    recipe = Recipe(
        method="lora", task=task, backbone="twin:gpt2", training={"steps": 3, "batch_size": 4}
    )
    record = run(recipe, tmp_path)
    loaded = load_run(tmp_path)
    body = json.loads((tmp_path / "record.json").read_text())

    assert set(record.metrics["test"]) == {"completion_loss", "exact_match", "rougeL"}
    assert record.data["chance"] is None
    assert record.costs["train_flops_per_example"] > 0
    assert record.costs["tokens_per_second"] > 0
    assert body["predictions"]["item"] == list(range(5))
    found = loaded.evaluate(folder / "test.jsonl")
    assert found == {**record.metrics["test"], "num_rows": 5}
    assert [answer["text"] for answer in loaded.predict(["write list", "row"])] == [
        "write list", "row",
    ]  # fmt: skip
