"""Where a family of transformers keeps its layers.

Methods speak of roles ("the query projections", "the output of the MLP"); a family says which
modules play them. A family is one file beside this one. Backbones of no known family are
described from their module tree.

Roles, all inside a block:
    query, key, value     projections into attention (one fused module may play all three)
    attention_output      projection out of attention, before residual and LayerNorm
    mlp_input             projections into the MLP's hidden width (two of them in gated MLPs)
    mlp_output            projection back to the model's width, before residual and LayerNorm
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from peftkit.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn

Role = Literal["query", "key", "value", "attention_output", "mlp_input", "mlp_output"]
ROLES: tuple[Role, ...] = (
    "query", "key", "value", "attention_output", "mlp_input", "mlp_output",
)  # fmt: skip
Pooling = Literal["first", "last", "mean"]
Inputs = Literal["text", "image", "audio"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What peftkit knows of one family.

    Attributes:
        name: The family's name, as the file's.
        model_types: `config.model_type` values that belong to it.
        roles: Role -> module names relative to a block.
        blocks: Pattern of the names of blocks; none: the longest list of modules of one class.
        inputs: What it reads.
        pooling: What of the last hidden states the classification head of transformers reads:
            the "first" token, the "last" one that is not padding, or the "mean".
        fixed: Ends of the names of parameters that are part of the architecture, such as
            sinusoids: no method trains them.
        shorten: Of a backbone that reads sounds of one length only: makes a model read another,
            given the model, its processor and seconds.
        twin: Arguments of the family's config class that make a tiny twin, for tests and
            `--smoke`; "model_type" names the class.
        twin_processor: Arguments of the twin's processor of images or sounds; "class" names it.
    """

    name: str
    model_types: tuple[str, ...]
    roles: dict[Role, tuple[str, ...]]
    blocks: str | None = None
    inputs: Inputs = "text"
    pooling: Pooling
    fixed: tuple[str, ...] = ()
    shorten: Callable[[Any, Any, float], None] | None = None
    twin: dict[str, Any] = field(default_factory=dict)
    twin_processor: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Where the layers of one loaded model are; names as in `model.named_modules()`.

    Attributes:
        family: Name of the family, or "unknown (module tree)".
        blocks: The transformer blocks, in order; an encoder's before a decoder's.
        roles: Role -> module names, over all blocks.
        head: Newly initialised modules (the task's output layer and what comes with it).
        norms: Normalisation layers with a weight, in order, the head's left out.
        final_norms: Those of them that follow the last block.
        hidden_size: Width of the hidden states.
        fixed: Names of the parameters that no method trains.
        stands_for: How many blocks the backbone has that a shallow one stands for; None: its own.
    """

    family: str
    blocks: tuple[str, ...]
    roles: dict[Role, tuple[str, ...]]
    head: tuple[str, ...]
    norms: tuple[str, ...]
    final_norms: tuple[str, ...]
    hidden_size: int
    fixed: tuple[str, ...] = ()
    stands_for: int | None = None

    @property
    def encoder_decoder(self) -> bool:
        """Whether a decoder follows an encoder."""
        return bool(self.blocks) and "encoder." in self.blocks[0] and "decoder." in self.blocks[-1]

    def linear(self, roles: Iterable[Role] = ROLES) -> tuple[str, ...]:
        """Names of the linear layers of `roles`, in block order, each once."""
        wanted = {name for role in roles for name in self.roles.get(role, ())}
        names = sorted(wanted)
        return tuple(n for block in self.blocks for n in names if n.startswith(block + "."))


@cache
def families() -> dict[str, Family]:
    """Every family found beside this file, by name."""
    package = importlib.import_module("peftkit.backbones")
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    found = [importlib.import_module(f"peftkit.backbones.{name}").FAMILY for name in sorted(names)]
    return {family.name: family for family in found}


def family_of(model_type: str) -> Family | None:
    """The family that `config.model_type` belongs to, None if no file here knows it."""
    return next((f for f in families().values() if model_type in f.model_types), None)


def find_layers(model: Any, *, head: Iterable[str]) -> Layers:
    """Find blocks and roles in `model`.

    Args:
        model: A transformers model with its task head.
        head: Names of the newly initialised modules, which are never given a role.
    """
    family = family_of(model.config.model_type)
    head = tuple(head)
    blocks = _find_blocks(model, family.blocks if family else None)
    linear = {n for n, m in model.named_modules() if _is_linear(m)}
    roles: dict[Role, tuple[str, ...]]
    if family is not None:
        roles = {
            role: tuple(f"{b}.{n}" for b in blocks for n in names if f"{b}.{n}" in linear)
            for role, names in family.roles.items()
        }
    else:
        roles = _roles_by_name(blocks, linear)
    norms, final = _find_norms(model, blocks, head)
    config = model.config.get_text_config()
    return Layers(
        family=family.name if family else "unknown (module tree)",
        blocks=blocks,
        roles=roles,
        head=head,
        norms=norms,
        final_norms=final,
        hidden_size=_hidden_size(config),
        fixed=tuple(
            name
            for name, _ in model.named_parameters()
            if f".{name}".endswith(tuple(f".{end}" for end in (family.fixed if family else ())))
        ),
    )


def _hidden_size(config: Any) -> int:
    size = getattr(config, "hidden_size", None)
    if not isinstance(size, int):
        raise Unsupported(
            f"{config.model_type} has no one width from its first block to its last, which methods "
            "and costs are counted by. Next: choose another backbone."
        )
    return size


def _find_blocks(model: nn.Module, pattern: str | None) -> tuple[str, ...]:
    """Modules named by the pattern; else the longest list of modules of one class is the stack.

    Of an encoder-decoder, whose blocks no pattern names, there is one such stack on either side;
    of one in stages (its configuration has `depths`), one in each.
    """
    from torch import nn

    if pattern:
        ends = re.compile(rf"(?:.*\.)?(?:{pattern})")
        return tuple(name for name, _ in model.named_modules() if ends.fullmatch(name))
    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) > 0
        and len({type(child) for child in module}) == 1
    ]
    longest = [max(part, key=lambda stack: len(stack[1])) for part in _parts(stacks, model.config)]
    return tuple(f"{name}.{i}" for name, stack in longest for i in range(len(stack)))


def _parts(stacks: list[tuple[str, Any]], config: Any) -> list[list[tuple[str, Any]]]:
    """The stacks, apart where a model has blocks in several of them."""
    if not stacks:
        return []
    if config.is_encoder_decoder:
        sides = [[s for s in stacks if side in s[0].split(".")] for side in ("encoder", "decoder")]
        return sides if all(sides) else [stacks]
    if getattr(config, "depths", None):
        names = [name for name, _ in stacks]
        inner = [s for s in stacks if not any(name.startswith(f"{s[0]}.") for name in names)]
        kind = type(max(inner, key=lambda stack: len(stack[1]))[1][0])
        return [[stack] for stack in inner if type(stack[1][0]) is kind]
    return [stacks]


def _find_norms(
    model: nn.Module, blocks: tuple[str, ...], head: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find normalisation layers by their class (LlamaRMSNorm, ...), and those after the blocks."""
    norms: list[str] = []
    final: list[str] = []
    for name, module in model.named_modules():
        if name == (blocks or ("",))[-1]:
            final.clear()
        if "norm" not in type(module).__name__.lower() or getattr(module, "weight", None) is None:
            continue
        if not f"{name}.".startswith(tuple(f"{part}." for part in head)):
            norms.append(name)
            final.append(name)
    inside = tuple(f"{block}." for block in blocks)
    # BART lists the norm of its embeddings behind its blocks.
    last = (n for n in final if not n.startswith(inside) and "embedding" not in n)
    return tuple(norms), tuple(last)


def _is_linear(module: nn.Module) -> bool:
    # bitsandbytes' layers are children of nn.Linear; GPT-2's Conv1D is a linear layer transposed.
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


# For unknown families: the words that libraries use for these projections, behind "attention".
_ATTENTION = re.compile(r"attn|attention")
_ATTENTION_WORDS: tuple[tuple[Role, str], ...] = (
    ("attention_output", r"o_proj|out_proj|out_lin|c_proj|output|\bdense|\bwo\b|\bo\b|\bout\b"),
    ("query", r"query_key_value|qkv|c_attn|in_proj"),
    ("key", r"k_proj|key|k_lin|\bk\b"),
    ("value", r"v_proj|value|v_lin|\bv\b"),
    ("query", r""),
)
_MLP_OUTPUT = re.compile(
    r"(down_proj|fc2|fc_out|c_proj|lin2|wo|dense_4h_to_h|output\.dense|ffn_output|\bout\b|w2)$"
)


def _roles_by_name(blocks: tuple[str, ...], linear: set[str]) -> dict[Role, tuple[str, ...]]:
    """Guess roles by name: whatever is no attention is MLP, whatever is fused plays query."""
    roles: dict[Role, list[str]] = {role: [] for role in ROLES}
    for block in blocks:
        for name in sorted(n for n in linear if n.startswith(block + ".")):
            roles[_role_by_name(name.removeprefix(block + ".").lower())].append(name)
    return {role: tuple(names) for role, names in roles.items()}


def _role_by_name(inside: str) -> Role:
    attention = _ATTENTION.search(inside)
    if attention is None:
        return "mlp_output" if _MLP_OUTPUT.search(inside) else "mlp_input"
    rest = inside[attention.end() :]
    return next(role for role, words in _ATTENTION_WORDS if re.search(words, rest))
