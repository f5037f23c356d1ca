"""What training would take of a card: methods x precisions x checkpointing.

Rows are pure data: which there are, and what a forecast says of each for one card and one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from peftkit import parts
from peftkit.errors import InvalidInput, UnknownName
from peftkit.listing import LADDER
from peftkit.overrides import parse_label
from peftkit.recipe import Recipe

if TYPE_CHECKING:
    from peftkit.memory.prediction import Forecast

Precision = Literal["bf16", "nf4", "int8", "fp32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
OPTIONS: dict[Precision, dict[str, str]] = {
    "bf16": {"backbone.dtype": "bfloat16", "training.precision": "bfloat16"},
    "nf4": {
        "backbone.dtype": "bfloat16",
        "training.precision": "bfloat16",
        "backbone.quantization": "nf4",
        "backbone.double_quantization": "true",
    },
    "int8": {
        "backbone.dtype": "bfloat16",
        "training.precision": "bfloat16",
        "backbone.quantization": "int8",
    },
    "fp32": {"backbone.dtype": "float32", "training.precision": "float32"},
}
"""Options of a recipe that make up a precision."""
CHECKPOINTING = "training.gradient_checkpointing"
AXES = frozenset({CHECKPOINTING, *(name for options in OPTIONS.values() for name in options)})
"""Options that differ between the rows of a plan."""
_NEXT_TO_NOTHING = 0.01  # of the card
PURE_BF16 = "full:master_weights=bfloat16"
FIRST = ("lora", "full", PURE_BF16)
"""What is asked for most often comes first."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row's place in the plan: a method as the user writes it, a precision, checkpointing."""

    method: str
    precision: Precision
    checkpointing: bool

    @property
    def options(self) -> dict[str, str]:
        """Options of a recipe that make it this row's."""
        extra = {CHECKPOINTING: "true"} if self.checkpointing else {}
        return {**OPTIONS[self.precision], **extra}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What all rows of a plan have in common.

    Attributes:
        configuration: What the backbone's config.json says.
        length: Tokens of every text.
        batch_size: Examples a forward pass.
        limit_bytes: What the card has.
        terms: What the device adds; see `peftkit.memory.device_terms`.
        device: Where it would be trained.
    """

    configuration: dict[str, Any]
    length: int
    batch_size: int
    limit_bytes: int
    terms: dict[str, Any] = field(default_factory=dict)
    device: Literal["cpu", "cuda"] = "cuda"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A change that lets a row fit, at the same number of examples a step.

    Attributes:
        changes: What is different, in a word each: "checkpointing", "nf4", "bf16".
        batch_size: Examples a forward pass.
        accumulation: Forward passes a step.
        total_bytes: What the card must then have.
    """

    changes: tuple[str, ...] = ()
    batch_size: int
    accumulation: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a forecast says of one card and one batch.

    Attributes:
        batch_size: Examples a forward pass.
        trainable_parameters, total_parameters: Counts.
        peak_bytes, parts, during, reserved_bytes, total_bytes: As `Prediction`.
        fits: Whether the card has what the batch needs.
        largest_batch: The largest batch that fits; 0: not even one example.
        split: The batch in parts that fit, if it does not fit as a whole, but they do.
    """

    batch_size: int
    trainable_parameters: int
    total_parameters: int
    peak_bytes: int
    parts: dict[str, int]
    during: str
    reserved_bytes: int
    total_bytes: int
    fits: bool
    largest_batch: int
    split: Way | None = None

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Outlook:
        """What `dataclasses.asdict` made plain."""
        split = body["split"]
        way = None if split is None else Way(**{**split, "changes": tuple(split["changes"])})
        return cls(**{**body, "split": way})


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the plan: an outlook, or the reason why there is none.

    Attributes:
        status: "unsupported": such a run would refuse; "failed": the forecast itself broke.
    """

    cell: Cell
    status: Literal["predicted", "unsupported", "failed"] = "predicted"
    reason: str = ""
    outlook: Outlook | None = None


# ---- which rows there are


def default_methods() -> tuple[str, ...]:
    """Every method that takes gradient steps, what is asked for most often first.

    Left out is the rung that trains as full fine-tuning does, for longer.
    """
    classes = {name: parts.load("method", name) for name in parts.find("method")}
    found = [n for n, c in classes.items() if c.learning_rate is not None and c.rung != "retrain"]
    rest = [name for name in found if name not in FIRST]
    return (*FIRST, *sorted(rest, key=lambda name: (LADDER.index(classes[name].rung), name)))


def cells(
    methods: Sequence[str] | None = None, precisions: Sequence[Precision] = PRECISIONS
) -> list[Cell]:
    """The rows of a plan in the order of the table; methods as in `peftkit compare`."""
    return [
        Cell(method=method, precision=precision, checkpointing=checkpointing)
        for method in (methods or default_methods())
        for precision in precisions
        if methods or method != PURE_BF16 or precision == "bf16"  # it is bfloat16 in any
        for checkpointing in (False, True)
    ]


def recipe_of(cell: Cell, body: Mapping[str, Any], changes: Mapping[str, object]) -> Recipe:
    """The recipe of a row.

    Args:
        cell: The row.
        body: Backbone and task, as `Recipe.from_dict` takes them.
        changes: Further options of all rows.

    Raises:
        UnknownName: A method or an option does not exist.
        InvalidInput: A value does not fit, or an option is one that rows differ in.
    """
    name, own = parse_label(cell.method)
    for option in (*changes, *own):
        if option.replace("-", "_") in AXES:
            raise InvalidInput(
                f"{option} is what the rows of a plan differ in",
                received=f"--{option.replace('_', '-')}" if option in changes else cell.method,
                allowed=f"--precisions {','.join(PRECISIONS)}; checkpointing is on in every "
                "second row",
                next_step="leave it out, and read the row that has it",
            )
    recipe = Recipe.from_dict({**body, "method": name}).override(changes).override(own)
    if type(recipe.method).learning_rate is None:
        raise UnknownName("method that takes gradient steps", name, default_methods())
    return recipe.override(cell.options)


def refusal(cell: Cell) -> str | None:
    """Why a method cannot have this precision or checkpointing; None: nothing is known of it."""
    cls = parts.load("method", parse_label(cell.method)[0])
    quantized = OPTIONS[cell.precision].get("backbone.quantization")
    if quantized and not cls.works_on_quantised:
        return f"trains weights of the blocks, and those kept as {quantized} cannot be trained"
    if cell.checkpointing and not cls.works_with_checkpointing:
        return "does not work with gradient checkpointing"
    return None


# ---- what a forecast says of a card


def outlook(
    forecast: Forecast,
    accumulated: Callable[[], Forecast],
    *,
    batch_size: int,
    limit_bytes: int,
) -> Outlook:
    """What a forecast says of a batch on a card of `limit_bytes`.

    Args:
        forecast: Of the row's recipe.
        accumulated: Makes the forecast of the same recipe with gradients that are added up over
            several forward passes; called only where that may help.
        batch_size: Examples a forward pass.
        limit_bytes: What the card has.
    """
    whole = forecast.peak(batch_size)
    fits = whole.total_bytes <= limit_bytes
    largest = forecast.largest_batch(limit_bytes)
    may_split = not fits and largest > 0
    return Outlook(
        batch_size=batch_size,
        trainable_parameters=forecast.trainable_parameters,
        total_parameters=forecast.total_parameters,
        peak_bytes=whole.peak_bytes,
        parts={str(name): size for name, size in whole.parts.items()},
        during=whole.during,
        reserved_bytes=whole.reserved_bytes,
        total_bytes=whole.total_bytes,
        fits=fits,
        largest_batch=largest,
        split=_split(forecast, accumulated, batch_size, limit_bytes) if may_split else None,
    )


def _split(
    forecast: Forecast, accumulated: Callable[[], Forecast], batch_size: int, limit_bytes: int
) -> Way | None:
    """The batch in as few equal parts as fit.

    From the second part on, the gradients of those before stand beside everything. Where that is
    next to nothing it is put on top; else a forecast of its own says when they matter.
    """
    gradients = 4 * forecast.trainable_parameters
    if gradients > limit_bytes * _NEXT_TO_NOTHING:
        forecast, gradients = accumulated(), 0
    for part in range(batch_size // 2, 0, -1):
        if batch_size % part == 0:
            needed = forecast.peak(part).total_bytes + gradients
            if needed <= limit_bytes:
                return Way(batch_size=part, accumulation=batch_size // part, total_bytes=needed)
    return None
