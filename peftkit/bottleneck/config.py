"""The hyperparameters of a bottleneck adapter, and where it goes by default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from peftkit._peft import TunerConfig
from peftkit.errors import InvalidInput, UnknownName

from .layer import ACTIVATIONS

# Each variant's non-linearity and scaling: google-research/adapter-bert `modeling.py`;
# MAD-X (Pfeiffer 2020b) eq. 1; He 2022, official code, `exps/run_xsum.sh`.
VARIANTS = {"houlsby": ("gelu", 1.0), "pfeiffer": ("relu", 1.0), "parallel": ("relu", 4.0)}

# Model type -> variant -> (target_modules, input_modules).
_BERT: dict[str, tuple[str, str | None]] = {
    "houlsby": (r"(.*\.)?layer\.\d+\.(attention\.)?output\.dense", None),
    "pfeiffer": (r"(.*\.)?layer\.\d+\.output\.dense", None),
    "parallel": (
        r"(.*\.)?layer\.\d+\.output\.dense",
        r"(.*\.)?layer\.\d+\.intermediate\.dense",
    ),
}
PLACES: dict[str, dict[str, tuple[str, str | None]]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": {
        "houlsby": (r"(.*\.)?layer\.\d+\.(attention\.out_lin|ffn\.lin2)", None),
        "pfeiffer": (r"(.*\.)?layer\.\d+\.ffn\.lin2", None),
        "parallel": (r"(.*\.)?layer\.\d+\.ffn", None),
    },
    "gpt2": {
        "houlsby": (r"(.*\.)?h\.\d+\.(attn|mlp)\.c_proj", None),
        "pfeiffer": (r"(.*\.)?h\.\d+\.mlp\.c_proj", None),
        "parallel": (r"(.*\.)?h\.\d+\.mlp", None),
    },
    "llama": {
        "houlsby": (r"(.*\.)?layers\.\d+\.(self_attn\.o_proj|mlp\.down_proj)", None),
        "pfeiffer": (r"(.*\.)?layers\.\d+\.mlp\.down_proj", None),
        "parallel": (r"(.*\.)?layers\.\d+\.mlp", None),
    },
}


@dataclass
class BottleneckConfig(TunerConfig):
    """A bottleneck adapter: what it computes and where.

    Per adapter of input width d, output width d' and size m: dm + m + md' + d' parameters, hence
    2L(2dm + m + d) for Houlsby's two in each of L layers and L(2dm + m + d) for the others.

    Args:
        variant: `houlsby` and `pfeiffer` act on the output of the targets and differ only in their
            default targets (attention and MLP output projection; the latter only); `parallel` adds
            to the output of the targets a function of an earlier input.
        reduction_factor: m = max(1, d' // reduction_factor). Default 16 (Pfeiffer 2020: 48 for BERT
            base), unless `bottleneck_size` is given.
        bottleneck_size: m itself.
        non_linearity: `relu`, `gelu`, `silu` (also `swish`) or `tanh`. Default: the variant's own,
            `gelu` for houlsby (its code), else `relu`.
        dropout: Probability, on the bottleneck activations as in He et al.'s code; default 0.
        scaling: s, a factor on the adapter's output. Default: 1 for the sequential variants; 4 for
            parallel, which is what He et al.'s scripts take for XSum (their GLUE script takes 2).
        input_modules: Parallel only: the modules whose input feeds the adapters, in the form of
            `target_modules`. A target reads the one of its layer that is nearest by name, and the
            first of several (gate and up projection have one input). None: the targets' own input.
            BERT needs it, having no module for a whole MLP: its default takes the input of
            `intermediate.dense` and adds to the output of `output.dense`.
        init_weights: True: W_up and both biases zero, so that training starts from the bare model,
            and W_down as `nn.Linear` has it (He et al.'s `lora` initialisation). False: everything
            as `nn.Linear` has it, for tests.

    Raises:
        InvalidInput: A value out of range, or two that exclude each other.
    """

    name: ClassVar[str] = "bottleneck"

    variant: Literal["houlsby", "pfeiffer", "parallel"] = field(default="houlsby")
    reduction_factor: int | None = field(default=None)
    bottleneck_size: int | None = field(default=None)
    non_linearity: str | None = field(default=None)
    dropout: float = field(default=0.0)
    scaling: float | None = field(default=None)
    input_modules: list[str] | str | None = field(default=None)
    init_weights: bool = field(default=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise UnknownName("variant", str(self.variant), VARIANTS)
        non_linearity, scaling = VARIANTS[self.variant]
        if self.non_linearity is None:
            self.non_linearity = non_linearity
        if self.non_linearity not in ACTIVATIONS:
            raise UnknownName("non_linearity", str(self.non_linearity), ACTIVATIONS)
        self.scaling = scaling if self.scaling is None else self.scaling
        if self.reduction_factor is None and self.bottleneck_size is None:
            self.reduction_factor = 16
        self._check_numbers()
        if self.input_modules is not None and self.variant != "parallel":
            raise InvalidInput(
                f"input_modules has no meaning for the variant {self.variant!r}",
                received=repr(self.input_modules),
                allowed="None: a sequential adapter reads the output of its target",
            )

    def _check_numbers(self) -> None:
        if self.reduction_factor is not None and self.bottleneck_size is not None:
            raise InvalidInput(
                "reduction_factor and bottleneck_size are both given",
                received=f"{self.reduction_factor} and {self.bottleneck_size}",
                allowed="one of the two",
            )
        for option in ("reduction_factor", "bottleneck_size"):
            value = getattr(self, option)
            if value is not None and (type(value) is not int or value < 1):
                raise InvalidInput(
                    f"{option} is out of range", received=value, allowed="a whole number from 1 up"
                )
        if not 0.0 <= self.dropout < 1.0:
            raise InvalidInput("dropout is out of range", received=self.dropout, allowed="[0, 1)")
        if self.scaling is None or not math.isfinite(self.scaling) or self.scaling == 0:
            raise InvalidInput(
                "scaling is out of range", received=self.scaling, allowed="a number other than zero"
            )

    def size(self, width: int) -> int:
        """Return m for an adapter whose output is `width` wide."""
        if self.bottleneck_size is not None:
            return self.bottleneck_size
        assert self.reduction_factor is not None
        return max(1, width // self.reduction_factor)
