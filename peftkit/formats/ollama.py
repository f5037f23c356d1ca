"""Ollama: a GGUF file, and the Modelfile that says how prompts are posed to it.

`ollama create NAME -f DIR/Modelfile`. The template is the task's own; answers are the likeliest
tokens, as the run was measured. Chat templates are left to their owners: Ollama writes them in
Go's language, and a translation that nobody has tried is worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import Unsupported
from peftkit.formats.gguf import FILE, GGUF

if TYPE_CHECKING:
    from peftkit.exporting.adapted import AdaptedRun

ASKED = "{{ .Prompt }}"
GREEDY = "PARAMETER temperature 0"


@dataclass(frozen=True, kw_only=True)
class Ollama(GGUF):
    """A GGUF file with its Modelfile, for Ollama; needs llama.cpp's converter (--llama-cpp)."""

    def check(self, run: AdaptedRun) -> None:
        super().check(run)
        if getattr(run.saved.recipe.task, "chat_template", None) is not None:
            raise Unsupported(
                "this run poses prompts as a chat, by a template in Jinja, and Ollama reads those "
                "of Go. Next: --format gguf, and a Modelfile of your own."
            )

    def write(self, run: AdaptedRun, folder: Path) -> None:
        super().write(run, folder)
        backbone = run.bench.backbone
        penalty = getattr(backbone.model.generation_config, "repetition_penalty", None) or 1
        text = modelfile(run.saved.recipe.task, backbone.processor.eos_token, penalty)
        (folder / "Modelfile").write_text(text, encoding="utf-8")


def modelfile(task: Any, end: str | None, penalty: float = 1) -> str:
    """What Ollama is told of the model.

    Args:
        task: That of the run.
        end: The token that ends a text.
        penalty: Discount of tokens that stand there already, as the run had it; Ollama has one of
            its own unless told.
    """
    lines = [f"FROM ./{FILE}", f'TEMPLATE """{template(task)}"""', GREEDY]
    lines.append(f"PARAMETER repeat_penalty {penalty:g}")
    if hasattr(task, "max_new_tokens"):
        lines.append(f"PARAMETER num_predict {task.max_new_tokens}")
    if end:
        lines.append(f'PARAMETER stop "{end}"')
    return "\n".join(lines) + "\n"


def template(task: Any) -> str:
    """How the task poses a prompt, in Go's language."""
    from peftkit.tasks._prompted import PROMPT, PromptedTask
    from peftkit.tasks._written import SOURCE, WrittenTask

    if isinstance(task, PromptedTask):
        return (task.template or f"{PROMPT}\n").replace(PROMPT, ASKED)
    if isinstance(task, WrittenTask):
        return (task.prompt or f"{SOURCE}\n").replace(SOURCE, ASKED)
    return ASKED
