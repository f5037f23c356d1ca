"""Whether conversations are written as the backbone was taught to read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.checks._finding import Finding, short

if TYPE_CHECKING:
    from peftkit.tasks import Task

CONVERSATION = [
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "Well."},
]


def check_chat_template(task: Task, tokenizer: Any) -> list[Finding]:
    """Compare the task's `chat_template`, if it has such a setting, with the tokenizer's own.

    Two that write the same conversation alike count as equal.
    """
    if not hasattr(task, "chat_template"):
        return []
    from peftkit.tasks._prompted import OWN, template_named

    own = tokenizer.chat_template
    asked = own if task.chat_template == OWN else template_named(task.chat_template)
    if asked is None or own is None or asked.strip() == own.strip():
        text = "the tokenizer's own" if own else "the task's; the tokenizer has none"
        if own is None and asked is None:
            text = "neither the task nor the tokenizer has one"
        return [Finding(check="chat template", level="ok", text=text)]
    ours, theirs = _written(tokenizer, asked), _written(tokenizer, own)
    if ours == theirs:
        text = "another text than the tokenizer's, which writes the same"
        return [Finding(check="chat template", level="ok", text=text)]
    return [
        Finding(
            check="chat template",
            level="warning",
            text="the chat template is not the tokenizer's own, which the backbone was taught by",
            count=1,
            quote=f"{short(repr(ours))} instead of {short(repr(theirs))}",
        )
    ]


def _written(tokenizer: Any, template: str) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            CONVERSATION, chat_template=template, tokenize=False
        )
    except TemplateError as error:
        return f"an error: {error}"
    return text
