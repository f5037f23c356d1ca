"""Everything peftkit raises on purpose.

    PeftkitError
    |-- InvalidInput (ValueError)      a request that cannot be honoured, seen before any work
    |   |-- UnknownName                a name nobody knows, with a did-you-mean
    |   |-- BackboneNotFound           no weights where the recipe says they are
    |   |-- WrongBackbone              an adapter meets a backbone it was not trained on
    |   `-- FolderBusy                 another comparison writes into the folder
    |-- Unsupported                    method, backbone and task do not go together: a row says so
    |-- DoesNotFit                     more memory than there is, by prediction: a row says so
    |-- VerificationFailed             what was written does not say what it was made of
    `-- Diverged                       training left the finite numbers: a row says so

A message has four parts: what is wrong, what was received, what is allowed, what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PeftkitError(Exception):
    """Base of all errors raised on purpose; catching it never hides a bug."""


class InvalidInput(PeftkitError, ValueError):
    """A request that cannot be honoured.

    Args:
        what: What is wrong, naming the option, file or column.
        received: The offending value, if showing it helps.
        allowed: What would have been accepted.
        next_step: What the user can do now.
    """

    def __init__(
        self,
        what: str,
        *,
        received: object = None,
        allowed: object = None,
        next_step: str | None = None,
    ) -> None:
        parts = [what.rstrip(".") + "."]
        if received is not None:
            parts.append(f"Received: {received}.")
        if allowed is not None:
            parts.append(f"Allowed: {allowed}.")
        if next_step is not None:
            parts.append(f"Next: {next_step.rstrip('.')}.")
        super().__init__(" ".join(parts))


class UnknownName(InvalidInput):
    """A name that is not among the known ones.

    Args:
        kind: What the name should have named, such as "method".
        name: The name received.
        known: The names that exist.
        next_step: Where to look further.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, next_step: str | None = None
    ) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(
            f"unknown {kind} {name!r}.{hint}", allowed=", ".join(known), next_step=next_step
        )


class BackboneNotFound(InvalidInput):
    """There are no usable weights where the recipe says they are."""


class WrongBackbone(InvalidInput):
    """An adapter was asked to run on a backbone other than the one it was trained on."""


class FolderBusy(InvalidInput):
    """Another process is writing into the output folder."""


class Unsupported(PeftkitError):
    """A combination that cannot exist; the message is the reason shown in the table."""


class DoesNotFit(PeftkitError):
    """A run would need more memory than there is; the message says what would fit."""


class VerificationFailed(PeftkitError):
    """What was written is not the model it was made of; the message says where it differs."""


class Diverged(PeftkitError):
    """Training produced a loss or a parameter that is not a finite number."""
