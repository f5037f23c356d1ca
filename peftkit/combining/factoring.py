"""From an update to factors of a rank: the truncated singular value decomposition.

No matrix of rank r is nearer to an update in the Frobenius norm than the sum of its r largest
singular parts (Eckart & Young 1936); what is lost is the root of the sum of the other squares.
The factors get the square root of the singular values each.

Which rank, unless one is asked for: all that float32 can tell from nothing (linear, task
arithmetic); the largest rank among the adapters (svd); the sum of their ranks (TIES and DARE, whose
results are not of low rank).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_NOTHING = 2.0**-46  # the square of float32's precision


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """A singular value decomposition, `left @ diag(values) @ right`.

    Attributes:
        left: `(out, n)`.
        values: `(n,)`, falling.
        right: `(n, in)`.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    def rank_of(self, energy: float, summands: float = 0.0) -> int:
        """The least rank, at least 1, that keeps the share `energy` of the squared norm.

        Args:
            energy: In (0, 1]; 1 means all but what float32 rounds away.
            summands: Squared norms, added up, of what the matrix is the sum of: where they cancel,
                what is left of their rounding is nothing to keep.
        """
        squares = self.values.square()
        whole = float(squares.sum())
        lost = squares.flip(0).cumsum(0)  # of the last 1, 2, ... values
        allowed = max((1 - energy) * whole, _NOTHING * max(whole, summands))
        return max(1, len(squares) - int((lost <= allowed).sum()))

    def cut(self, rank: int) -> tuple[Tensor, Tensor]:
        """Factors `(out, rank)` and `(rank, in)` of the nearest matrix of that rank."""
        roots = self.values[:rank].sqrt()
        return self.left[:, :rank] * roots, roots[:, None] * self.right[:rank]


def decompose(matrix: Tensor) -> Spectrum:
    """Decompose any matrix."""
    import torch

    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return Spectrum(left=left, values=values, right=right)


def decompose_product(up: Tensor, down: Tensor) -> Spectrum:
    """Decompose `up @ down` without computing it: of their triangular parts the product is small.

    Args:
        up: `(out, rank)`.
        down: `(rank, in)`.
    """
    import torch

    left, left_part = torch.linalg.qr(up)
    right, right_part = torch.linalg.qr(down.T)
    small = decompose(left_part @ right_part.T)
    return Spectrum(left=left @ small.left, values=small.values, right=small.right @ right.T)
