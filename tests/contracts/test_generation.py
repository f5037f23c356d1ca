"""What every method promises where answers are written, on every family that can write."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cells import ADAPTERS, ATTACHED, FAMILIES, MATRIX, METHODS
from peftkit.backbones import families
from peftkit.errors import Unsupported
from peftkit.generate import generate
from peftkit.seeds import seeded
from peftkit.workbench import Workbench

pytestmark = pytest.mark.usefixtures("libraries")

WRITERS = tuple(name for name in FAMILIES if families()[name].pooling == "last")
UNSUPPORTED = {
    **{(m, f): "no head for this task" for m in METHODS for f in FAMILIES if f not in WRITERS},
    **{("bitfit", f): "no bias to train" for f in ("gemma", "llama", "mistral", "t5")},
    **{("continued_pretraining", f): "restore damaged text" for f in ("bart", "marian", "t5")},
    **{("linear_probe", f): "no new one to train" for f in FAMILIES},
    **{("tfidf", f): "parts of it" for f in FAMILIES},
}
WORDS = "list file name type data model layer plot axis index row column".split()
LONGEST = 10


def by_default(method: str, family: str) -> bool:
    """A sixth, of what cannot be less; every method and every family is among them."""
    number = METHODS.index(method) + FAMILIES.index(family)
    return number % (6 if family in WRITERS else 9) == 0


def pairs(methods: tuple[str, ...], *, unsupported: bool = False) -> Any:
    chosen = [(m, f) for m in methods for f in FAMILIES if ((m, f) in UNSUPPORTED) is unsupported]
    return pytest.mark.parametrize(
        ("method", "family"),
        [
            pytest.param(m, f, id=f"{m}-{f}", marks=() if by_default(m, f) else MATRIX)
            for m, f in chosen
        ],
    )


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words, to be written in the other order."""
    folder = tmp_path_factory.mktemp("written")
    draw = random.Random(0)
    for split, count in {"train": 24, "validation": 4, "test": 9}.items():
        some = [draw.choices(WORDS, k=1 + i % 7) for i in range(count)]
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [(" ".join(words), " ".join(reversed(words))) for words in some]
            csv.writer(file).writerows([("source", "target"), *rows])
    return folder


@pytest.fixture(scope="session")
def bench(make_bench: Callable[..., Workbench], pairs_folder: Path) -> Callable[..., Workbench]:
    task = {"name": "translation", "data": str(pairs_folder), "max_new_tokens": LONGEST}
    return lambda method, family, **options: make_bench(
        method, f"twin:{family}", task={**task, "max_length": 64}, **options
    )


def perturbed(here: Workbench) -> Any:
    """The method attached, what it trains moved far away from where it starts."""
    model = here.attach(here.recipe.method).eval()
    with torch.no_grad(), seeded(0, "perturbation"):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def logits_of(here: Workbench, model: Any, examples: list[Any]) -> torch.Tensor:
    batch = here.collate(examples)
    del batch["labels"]
    with torch.inference_mode():
        return here.logits(model(**batch), batch).clone()  # type: ignore[no-any-return]


@pairs(METHODS, unsupported=True)
def test_a_pair_that_cannot_write_says_why(
    bench: Callable[..., Workbench],
    record_property: Callable[[str, object], None],
    method: str,
    family: str,
) -> None:
    here = bench(method, family)
    with pytest.raises(Unsupported, match=UNSUPPORTED[method, family]) as caught:
        here.recipe.method.fit(here)
    record_property("unsupported", str(caught.value))  # benchmarks/support.py reads it


@pairs(tuple(m for m in METHODS if m not in ("linear_probe", "tfidf")))
def test_every_method_learns_to_write_and_is_saved(
    bench: Callable[..., Workbench], method: str, family: str
) -> None:
    here = bench(method, family, learning_rate=0.02, steps=4)
    predictor = here.recipe.method.fit(here)
    predictor.save(here.folder)
    written = predictor.outputs(here.data.test)
    again = bench(method, family, seed=5)
    reloaded = again.recipe.method.reload(again, here.folder)
    examples = here.encode(here.data.test)
    one, other = (
        logits_of(b, p.model, examples) for b, p in ((here, predictor), (again, reloaded))
    )

    assert len(written) == len(here.data.test)
    assert predictor.parameters.head == 0
    assert (predictor.parameters.method > 0) is (method != "none")
    if method == "scratch":
        assert here.trained is not None  # its weights are other ones with another seed
    assert torch.equal(one, other)
    assert reloaded.outputs(here.data.test) == written


@pairs(ATTACHED)
def test_padding_changes_nothing_that_is_written(
    bench: Callable[..., Workbench], method: str, family: str
) -> None:
    """Neither the logits while learning, nor the tokens that are written."""
    here = bench(method, family)
    model = perturbed(here)
    rows = sorted(here.encode(here.data.train), key=lambda e: len(e["input_ids"]))
    short, long = rows[0], rows[-1]
    together = logits_of(here, model, [short, long])
    prompts = [e["input_ids"][: e.get("_prompt")] for e in (short, long)]
    pad = here.backbone.processor.pad_token_id
    options: dict[str, Any] = {"pad": pad, "options": {"max_new_tokens": 6, "pad_token_id": pad}}
    written = generate(model, prompts, **options)

    assert len(long["input_ids"]) > len(short["input_ids"]) + 3
    for row, example in enumerate((short, long)):
        alone = logits_of(here, model, [example])
        here_and_there = (together[row, : alone.shape[1]] - alone[0]).abs().max()
        assert here_and_there <= 1e-4 * max(1.0, float(alone.abs().max()))
        (single,) = generate(model, [prompts[row]], **options)
        assert [t for t in written[row] if t != pad] == [t for t in single if t != pad]


@pairs(ATTACHED)
def test_what_is_written_is_the_likeliest_token_each_time(
    bench: Callable[..., Workbench], method: str, family: str
) -> None:
    """Against a forward pass over the whole beginning for every token, without any cache."""
    here = bench(method, family)
    model = perturbed(here)
    example = here.encode(here.data.train)[5]
    prompt = example["input_ids"][: example.get("_prompt")]
    config, steps = model.config, 5
    pad, end = here.backbone.processor.pad_token_id, here.backbone.processor.eos_token_id
    (found,) = generate(
        model, [prompt], pad=pad,
        # Never ended early, so that there is something to compare.
        options={"max_new_tokens": steps, "min_new_tokens": steps, "forced_eos_token_id": None,
                 "pad_token_id": pad},
    )  # fmt: skip
    so_far = [config.decoder_start_token_id] if config.is_encoder_decoder else []
    for _ in range(steps):
        ids = prompt if config.is_encoder_decoder else prompt + so_far
        inputs = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids)).long(),
        }
        if config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.tensor([so_far])
        with torch.inference_mode():
            logits = model(**inputs).logits[0, -1].clone()
            logits[end] = -torch.inf
        so_far.append(int(logits.argmax()))

    assert found == so_far


@pairs(ADAPTERS)
def test_the_adapter_taken_away_writes_as_the_bare_model(
    bench: Callable[..., Workbench], method: str, family: str
) -> None:
    here = bench(method, family)
    examples = here.encode(here.data.train)[:6]
    bare = logits_of(here, here.backbone.model, examples)
    model = perturbed(here)
    moved = logits_of(here, model, examples)
    if model.active_peft_config.is_prompt_learning:
        again = logits_of(here, model.get_base_model(), examples)
    else:
        with model.disable_adapter():
            again = logits_of(here, model, examples)

    assert (moved - bare).abs().max() > 1e-3
    assert torch.equal(again, bare)


@pairs(ATTACHED)
def test_only_what_is_declared_learns_to_write(
    bench: Callable[..., Workbench], method: str, family: str
) -> None:
    here = bench(method, family, learning_rate=0.02)
    own = dict(here.backbone.model.named_parameters())
    before = {name: p.detach().clone() for name, p in own.items()}
    predictor = here.recipe.method.fit(here)
    moved = {name for name, p in own.items() if not torch.equal(p, before[name])}
    trained = [p for p in predictor.model.parameters() if p.requires_grad]

    assert trained
    if method in ADAPTERS:
        assert moved == set()
        assert not any(p is q for p in trained for q in own.values())
    else:
        still = {n for n in set(own) - moved if own[n].requires_grad and "k_proj.bias" not in n}
        # An embedding of a position or word that no text had cannot move; whole tensors do.
        assert still == set()
