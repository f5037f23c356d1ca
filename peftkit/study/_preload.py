"""Imported once by the fork server before it forks its first worker.

Importing this module has side effects, so nothing else may import it: the process stops listening
to Ctrl-C (its parent decides), falls silent, and imports the modules named in its environment. It
does no tensor work, because a fork after a parallel torch operation hangs the child.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal

from peftkit.environment import sparing_imports
from peftkit.study._worker import GUARD, PRELOAD, die_with_parent


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.environ.pop(GUARD, ""):
        die_with_parent()
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # libraries warn while being imported; a cell shows its own errors
        os.dup2(silence, descriptor)
    os.close(silence)
    with sparing_imports():
        for name in filter(None, os.environ.pop(PRELOAD, "").split(",")):
            with contextlib.suppress(Exception):  # the cell that needs it reports the error
                importlib.import_module(name)


_serve()
