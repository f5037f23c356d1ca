"""A recipe is checked when it is made, survives files, and its fingerprint tells it apart."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit import parts
from peftkit.errors import InvalidInput, UnknownName
from peftkit.flags import parse_flags, read_flags, recipe_help
from peftkit.methods._method import Method
from peftkit.recipe import Backbone, Recipe, Training
from peftkit.tasks._task import Task

HERE = Path(__file__)
METHOD = f"{HERE}:Scale"
METHOD_OF_ONES_OWN = """
from dataclasses import dataclass
from peftkit.methods.lora import LoRA
@dataclass(frozen=True, kw_only=True)
class Own(LoRA):
    pass
"""
TASK = f"{HERE}:Sorting"


@dataclass(frozen=True, kw_only=True)
class Scale(Method):
    """A method for these tests.

    Attributes:
        alpha: Scale of the update,
            as in the paper.
    """

    rung: ClassVar[Any] = "parameter-efficient"
    learning_rate: ClassVar[float | None] = 5e-4

    rank: int = 8
    """Rank of the update."""
    alpha: float = 16.0
    init: Literal["default", "pissa"] = "default"
    targets: Literal["attention", "all"] | tuple[str, ...] = "all"
    sizes: tuple[int, ...] = (1, 2)
    bias: str | None = None
    stable: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InvalidInput("method.rank must be at least 1", received=self.rank)


@dataclass(frozen=True, kw_only=True)
class Sorting(Task):
    """A task for these tests."""

    metric: ClassVar[str] = "accuracy"
    corpora: ClassVar[tuple[str, ...]] = ("toy/letters",)

    max_length: int = 128


def recipe(**options: Any) -> Recipe:
    """A recipe of the method and the task above."""
    return Recipe(**{"method": METHOD, "task": {"name": TASK, "data": "x"}, **options})


FLAGS = ["--method", METHOD, "--task", TASK, "--data", "x"]


@pytest.fixture(scope="module", autouse=True)
def _this_file_is_loaded_as_a_part() -> None:
    """Once, and not first within a test of hypothesis, whose decorators stand in this file too."""
    parts.load("method", METHOD)


@pytest.fixture
def corpus_task(monkeypatch: pytest.MonkeyPatch) -> type[Task]:
    """The tasks of the package replaced by one, called text_classification."""
    cls = parts.load("task", TASK)
    real = parts.load
    name = "text_classification"
    monkeypatch.setattr(parts, "find", lambda kind: (name,))
    monkeypatch.setattr(parts, "load", lambda kind, n: cls if n == name else real(kind, n))
    return cls


# --- making one ----------------------------------------------------------------------------------


def test_names_mappings_and_instances_make_equal_recipes() -> None:
    """The three ways to write a part are the same."""
    scale: Any = parts.load("method", METHOD)
    sorting = parts.load("task", TASK)

    by_name = Recipe(method=METHOD, task={"name": TASK, "data": "x"}, backbone="some/model")
    by_instance = Recipe(
        method=scale(), task=sorting(data="x"), backbone=Backbone(name="some/model")
    )

    assert by_instance == by_name
    assert by_name.method == scale(rank=8)
    assert by_name.seed == 0
    assert by_name.training == Training()


def test_a_corpus_name_is_a_task(corpus_task: type[Task]) -> None:
    """The name of a bundled corpus stands for the task that lists it, with that data."""
    made = Recipe(method=METHOD, task="toy/letters")

    assert made.task == corpus_task(data="toy/letters")
    assert made.override({"task": "toy/letters", "size": 5}).task.size == 5


def test_an_existing_path_is_text_to_classify(corpus_task: type[Task], tmp_path: Path) -> None:
    """A file that is there needs no task name."""
    data = tmp_path / "reviews.csv"
    data.write_text("text,label\n")

    assert Recipe(method=METHOD, task=data).task == corpus_task(data=str(data))


@pytest.mark.usefixtures("corpus_task")
def test_an_unknown_task_suggests_corpora_and_says_how_to_name_hub_data() -> None:
    """A name with a slash is not silently taken for a data set of the hub."""
    with pytest.raises(UnknownName, match=r"Did you mean 'toy/letters'.*--task.data toy/leters"):
        Recipe(method=METHOD, task="toy/leters")


def test_missing_data_is_asked_for_with_the_flag() -> None:
    """A required option that is missing is named as it would be typed."""
    with pytest.raises(InvalidInput, match=r"task.data is missing.*--task.data VALUE"):
        Recipe(method=METHOD, task=TASK)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("batch_size", "abc", r"training.batch_size must be an integer of at least 1. .*'abc'"),
        ("batch_size", True, "must be an integer of at least 1. Received: True"),
        ("batch_size", 4.5, "Received: 4.5"),
        ("batch_size", 0, "of at least 1"),
        ("batch_size", None, "Received: None"),
        ("learning_rate", -1.0, "must be a number above 0 or none"),
        ("learning_rate", math.nan, "Received: nan"),
        ("learning_rate", math.inf, "Received: inf"),
        ("warmup", 1.0, "at least 0 and below 1"),
        ("keep_best", 1, "must be true or false"),
        ("precision", "bf16", "unknown training.precision 'bf16'. Did you mean 'bfloat16'"),
        ("threads", 0, "training.threads must be"),
    ],
)
def test_values_that_do_not_fit_are_refused(option: str, value: Any, message: str) -> None:
    """Type and range are checked at construction; the message names the option."""
    with pytest.raises(InvalidInput, match=message):
        Training(**{option: value})


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 10, "epochs": 1.0},
        {"keep_best": True},
        {"patience": 2},
    ],
)
def test_contradictions_are_refused_with_a_next_step(options: dict[str, Any]) -> None:
    """Options that need or exclude each other are checked together."""
    with pytest.raises(InvalidInput, match="Next: "):
        Training(**options)


def test_fields_of_instances_are_checked_too() -> None:
    """A method made in Python passes through the same check as one from a file."""
    with pytest.raises(InvalidInput, match=r"method.rank must be an integer. Received: 8.5"):
        recipe(method=Scale(rank=8.5))  # type: ignore[arg-type]


def test_own_checks_of_a_method_are_heard() -> None:
    """What only the method can know is raised by its `__post_init__`."""
    with pytest.raises(InvalidInput, match=r"method\.rank must be at least 1"):
        recipe(method={"name": METHOD, "rank": 0})


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "x"])
def test_seed_is_a_32_bit_integer(seed: object) -> None:
    """Seeds that a generator of numpy would refuse are refused here."""
    with pytest.raises(InvalidInput, match="seed must be an integer"):
        recipe(seed=seed)


def test_integers_of_numpy_are_integers() -> None:
    """Grids are often made with numpy."""
    numpy = pytest.importorskip("numpy")

    assert type(recipe(seed=numpy.int64(3)).seed) is int


@pytest.mark.parametrize(
    ("training", "num_examples", "expected"),
    [
        (Training(), 100, 250),  # 3 epochs of 13 batches are fewer than 250
        (Training(), 10_000, 3750),  # 3 x 1250
        (Training(gradient_accumulation=2), 10_000, 1875),  # 3 x 625
        (Training(epochs=0.5), 100, 7),  # half of 13, rounded up
        (Training(epochs=0.001), 100, 1),
        (Training(steps=7), 100, 7),
    ],
)
def test_number_of_steps(training: Training, num_examples: int, expected: int) -> None:
    """Steps as given, else of the epochs given, else three epochs and at least 250."""
    assert training.num_steps(num_examples) == expected


# --- files ---------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes with every kind of field drawn at random."""
    return Recipe(
        method={
            "name": METHOD,
            "rank": draw(st.integers(1, 2**40)),
            "alpha": draw(finite),
            "init": draw(st.sampled_from(["default", "pissa"])),
            "targets": draw(st.sampled_from(["attention", "all"]) | st.lists(words)),
            "sizes": draw(st.lists(st.integers())),
            "bias": draw(
                st.none() | words | st.sampled_from(["none", "null", "3e-4", "true", "1"])
            ),
            "stable": draw(st.booleans()),
        },
        task={"name": TASK, "data": draw(words), "size": draw(st.none() | st.integers())},
        backbone={"name": "m" + draw(words), "revision": draw(st.none() | words)},
        training={"learning_rate": draw(st.none() | st.floats(1e-300, 1e300))},
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@given(recipes())
def test_plain_data_is_lossless(made: Recipe) -> None:
    """A recipe is its plain data, also after JSON."""
    assert Recipe.from_dict(made.to_dict()) == made
    assert Recipe.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_files_are_lossless(tmp_path_factory: pytest.TempPathFactory, suffix: str) -> None:
    """What was saved is what is loaded, fingerprint included."""
    path = tmp_path_factory.mktemp("recipes") / f"r{suffix}"

    @given(recipes())
    def holds(made: Recipe) -> None:
        made.save(path)
        again = Recipe.load(path)
        assert again == made
        assert again.fingerprint(precision="float32") == made.fingerprint(precision="float32")

    holds()


def test_yaml_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 3e-4 as text; people write it anyway."""
    path = tmp_path / "r.yaml"
    path.write_text(
        f"method: {{name: '{METHOD}', targets: [q, v]}}\n"
        f"task: {{name: '{TASK}', data: x}}\ntraining: {{learning_rate: 3e-4}}\n"
    )

    loaded = Recipe.load(path)

    assert loaded.training.learning_rate == 0.0003
    assert loaded.to_dict()["method"]["targets"] == ["q", "v"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.toml", "", "must end in .yaml"),
        ("r.yaml", "a: [", "cannot be read"),
        ("r.json", "{", "cannot be read"),
        ("r.yaml", "- 1", "a list instead of a mapping"),
        ("r.json", '{"metod": 1}', "unknown option 'metod'. Did you mean 'method'"),
        ("r.json", '{"method": {"rank": 1}, "task": "x"}', "method.name is missing"),
        ("r.json", '{"method": "x"}', "the recipe has no task"),
    ],
)
def test_bad_files_are_explained(tmp_path: Path, name: str, text: str, message: str) -> None:
    """Whatever is wrong with a file is an InvalidInput, never a traceback."""
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(InvalidInput, match=message):
        Recipe.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A recipe file that is not there is an error about that file."""
    with pytest.raises(InvalidInput, match=r"gone\.yaml cannot be read"):
        Recipe.load(tmp_path / "gone.yaml")


# --- overrides and fingerprint -------------------------------------------------------------------


def test_override_takes_long_short_and_dashed_names() -> None:
    """Every way to name an option reaches it, and the rest stays."""
    base = recipe(method={"name": METHOD, "rank": 4})

    made = base.override(
        {"method.alpha": "8", "training.learning-rate": "3e-4", "size": 100, "noise": 0.1}
    )

    assert (made.method.rank, made.method.alpha) == (4, 8.0)  # type: ignore[attr-defined]
    assert made.training.learning_rate == 3e-4
    assert (made.task.size, made.task.label_noise, made.task.data) == (100, 0.1, "x")
    assert base == recipe(method={"name": METHOD, "rank": 4})


def test_naming_a_part_resets_its_options() -> None:
    """A method's options do not leak into the next method, in whichever order they are given."""
    base = recipe(method={"name": METHOD, "rank": 4, "alpha": 2.0})

    made = base.override({"method.alpha": 3.0, "method": METHOD})

    assert made == recipe(method={"name": METHOD, "alpha": 3.0})


def test_steps_and_epochs_replace_each_other() -> None:
    """`--steps 2` on a recipe in epochs means two steps."""
    base = recipe(training={"epochs": 3.0})

    assert base.override({"steps": 2}).training == Training(steps=2)
    assert base.override({"steps": "none"}).training == Training(epochs=3.0)
    with pytest.raises(InvalidInput, match="both given"):
        base.override({"steps": 2, "epochs": 1.0})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("method.rnak", "unknown option 'method.rnak'. Did you mean 'method.rank'"),
        ("rank", "Did you mean 'method.rank'.*write --method.rank"),
        ("traning.steps", "Did you mean 'training.steps'"),
        ("keep-best", "write --training.keep-best"),
        ("training.", "unknown option 'training.'"),
    ],
)
def test_unknown_options_suggest_near_ones(key: str, message: str) -> None:
    """A misspelt option, or one without its part, is answered with the right one."""
    with pytest.raises(UnknownName, match=message):
        recipe().override({key: 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"method.rank": 9},
        {"method.alpha": 9.0},
        {"task.size": 9},
        {"task.max_length": 9},
        {"seed": 9},
        {"backbone": "other"},
        {"backbone.revision": "v1"},
        {"steps": 9},
        {"learning_rate": 9.0},
        {"threads": 2},
        {"training.order": "random"},
        {"training.gradient_checkpointing": True},
    ],
)
def test_fingerprint_changes_with_whatever_changes_results(changes: dict[str, Any]) -> None:
    """Two recipes that could differ in results or costs are told apart."""
    changed = recipe().override(changes).fingerprint(precision="float32")

    assert changed != recipe().fingerprint(precision="float32")


def test_fingerprint_ignores_bookkeeping_and_spelling() -> None:
    """Checkpoints, `auto`, a default spelt out, and 16 for 16.0 change nothing."""
    expected = recipe().fingerprint(precision="float32")

    for same in (
        recipe().override({"training.save_every": 5}),
        recipe().override({"precision": "float32"}),
        recipe().override({"learning_rate": 5e-4}),  # the default of Scale
        recipe(method={"name": METHOD, "alpha": 16}),
    ):
        assert same.fingerprint(precision="float32") == expected
    assert recipe().fingerprint(precision="bfloat16") != expected
    assert len(expected) == 64


def test_fingerprint_changes_with_the_version_of_the_metric(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numbers of two definitions of a metric never meet under one key."""
    before = recipe().fingerprint(precision="float32")
    monkeypatch.setattr(parts.load("task", TASK), "metric_version", 2)

    assert recipe().fingerprint(precision="float32") != before


def test_fingerprint_changes_with_what_a_part_of_ones_own_does(tmp_path: Path) -> None:
    """A method in a file of one's own that is written anew is another method."""
    own = tmp_path / "own.py"
    own.write_text(METHOD_OF_ONES_OWN, encoding="utf-8")
    found = []
    for line in ("", "", "# changed\n"):
        with own.open("a", encoding="utf-8") as file:
            file.write(line)
        found.append(recipe(method=f"{own}:Own").fingerprint(precision="float32"))

    assert found[0] == found[1] != found[2]


def test_fingerprint_changes_with_the_text_that_is_read(tmp_path: Path) -> None:
    """So do other words in the corpus of continued pretraining, a file or a folder."""
    text = tmp_path / "corpus" / "text.txt"
    text.parent.mkdir()
    for named in (text, text.parent):
        found = []
        for written in ("one two", "one two", "one six"):
            text.write_text(written, encoding="utf-8")
            method = {"name": "continued_pretraining", "text": str(named)}
            found.append(recipe(method=method).fingerprint(precision="float32"))

        assert found[0] == found[1] != found[2]


# --- the command line ----------------------------------------------------------------------------


def test_flags_make_a_recipe_and_hand_back_extras() -> None:
    """Values, `=`, switches and their negation, lists and None, in one line."""
    argv = [
        *FLAGS,
        *["--method.rank=4", "--method.stable", "--training.learning-rate", "3e-4"],
        *["--method.targets", "q,v", "--method.sizes", "5", "--backbone.revision", "none"],
        *["--training.evaluate-every", "5", "--training.no-keep-best"],
        *["--out", "dir", "--smoke", "--sizes", "1,2"],
    ]
    own = {"out": str, "smoke": bool, "sizes": tuple[int, ...], "not-given": str}

    made, extras = parse_flags(argv, extras=own)

    expected = recipe(
        method={"name": METHOD, "rank": 4, "stable": True, "targets": ("q", "v"), "sizes": (5,)},
        training={"learning_rate": 3e-4, "evaluate_every": 5},
    )
    assert made == expected
    assert extras == {"out": "dir", "smoke": True, "sizes": (1, 2)}


def test_flags_with_a_base_change_only_what_they_name() -> None:
    """A recipe script's recipe stays, but for the flags."""
    base = recipe(training={"epochs": 2.0}, seed=5)

    made, _ = parse_flags(["--steps", "7"], base)

    assert made == recipe(training={"steps": 7}, seed=5)
    assert parse_flags([], base)[0] == base


def test_config_file_lies_between_base_and_flags(tmp_path: Path) -> None:
    """Flags win over the file, the file over the base; a partial file leaves the rest."""
    path = tmp_path / "part.yaml"
    path.write_text("training: {batch_size: 4, threads: 2}\nmethod: {rank: 3}\n")
    base = recipe(method={"name": METHOD, "alpha": 2.0}, training={"warmup": 0.5}, seed=5)

    made, _ = parse_flags(["--threads", "3", "--config", str(path)], base)

    assert made == recipe(
        method={"name": METHOD, "alpha": 2.0, "rank": 3},
        training={"warmup": 0.5, "batch_size": 4, "threads": 3},
        seed=5,
    )


def test_a_saved_recipe_is_a_config_file(tmp_path: Path) -> None:
    """`--config` with a whole recipe needs no other flag, and replaces a base."""
    made = recipe(method={"name": METHOD, "rank": 3}, seed=9)
    made.save(tmp_path / "r.json")
    argv = ["--config", str(tmp_path / "r.json")]

    assert parse_flags(argv)[0] == made
    assert parse_flags(argv, recipe(training={"steps": 1}))[0] == made


def test_words_for_none_stay_text_in_files_but_not_in_flags() -> None:
    """A file that says the text "none" means it; a command line has no other way to say None."""
    assert recipe(backbone={"revision": "none"}).backbone.revision == "none"
    assert parse_flags([*FLAGS, "--backbone.revision", "none"])[0].backbone.revision is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*FLAGS, "stray"], "belongs to no option. Received: 'stray'"),
        ([*FLAGS, "--method.rank"], "method.rank must be an integer. Received: no value"),
        ([*FLAGS, "--config"], "config must be text. Received: no value"),
        ([*FLAGS, "--method"], "must be a name.*no value"),
        ([*FLAGS, "--method.rank", "true"], "must be an integer"),
        ([*FLAGS, "--out"], "out must be text"),
        (["--task", TASK, "--data", "x"], "the recipe has no method.*--method NAME"),
        (["--method.rank", "3"], "the recipe has no task|method.name is missing"),
    ],
)
def test_bad_flags_are_explained(argv: list[str], message: str) -> None:
    """What cannot be read is refused before anything is made."""
    with pytest.raises(InvalidInput, match=message):
        parse_flags(argv, extras={"out": str})


def test_a_negative_number_is_a_value() -> None:
    """A single dash starts no option."""
    assert read_flags(["--method.alpha", "-1.5"])[0] == {"method.alpha": "-1.5"}


def test_help_shows_every_option_with_default_and_docstring() -> None:
    """The help is made of the fields, so it cannot leave one out."""
    text = recipe_help(METHOD, TASK)

    body = recipe().to_dict()
    for part in ("backbone", "method", "task", "training"):
        for option in set(body[part]) - ({"name"} if part in ("method", "task") else set()):
            assert f"--{part}.{option.replace('_', '-')} <" in text
    assert "--method.rank <integer> (default 8)\n      Rank of the update.\n" in text
    assert "Scale of the update, as in the paper." in text
    assert "--task.data <text> (required)" in text


def test_every_setting_is_documented() -> None:
    """No option of the recipe itself is without a word."""
    lines = recipe_help().splitlines()

    undocumented = [
        line
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("  --") and not after.startswith("      ")
    ]
    assert len([line for line in lines if line.startswith("  --training.")]) == len(
        dataclasses.fields(Training)
    )
    assert undocumented == []


def test_making_a_recipe_imports_no_torch() -> None:
    """Mistakes must show before torch has loaded."""
    code = (
        "import sys; from peftkit.flags import parse_flags\n"
        "from peftkit.recipe import Recipe\n"
        f"made, _ = parse_flags({FLAGS!r})\n"
        "Recipe.from_dict(made.to_dict()).fingerprint(precision='float32')\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    root = Path(parts.__file__).parents[1]

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False
    )

    assert (done.stdout.strip(), done.stderr) == ("[]", "")
