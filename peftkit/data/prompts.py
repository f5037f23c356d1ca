"""Prompts and what follows them: plain texts, or the messages of a chat.

A prompt is a text, or a list of `{"role": ..., "content": ...}`; what follows it is a text always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from datasets import Dataset

Prompt = str | list[dict[str, str]]
# Column of the prompt, and of what follows it; the first pair that is there.
_USUAL = (("prompt", "completion"), ("instruction", "output"), ("question", "answer"))
_CHATS = ("messages", "conversations")
_ROLES = {"human": "user", "gpt": "assistant"}  # as ShareGPT calls them


def known_prompts(
    rows: Dataset, *, source: str, prompt: str | None = None, completion: str | None = None
) -> Dataset:
    """Rows as "prompt" and "completion".

    Found are, in this order: the columns named; `messages` (or ShareGPT's `conversations`), of
    which the last is the completion; `prompt` and `completion`; `instruction`, `input` and
    `output`; `question` and `answer`. Prompt and completion may be texts or messages.

    Args:
        rows: As read.
        source: Where they come from, for errors.
        prompt: Column of the prompt.
        completion: Column of the completion.

    Raises:
        InvalidInput: The columns are not there, or a row is empty or does not end as it should.
        UnknownName: There is no column of the name given.
    """
    chat = next((name for name in _CHATS if name in rows.column_names), None)
    if prompt is None and completion is None and chat is not None:
        talks = [_messages(each, row, chat, source) for row, each in enumerate(rows[chat][:])]
        found = [(talk[:-1], talk[-1:]) for talk in talks]
        where = (chat, chat)
    else:
        where = _columns(rows, prompt, completion, source)
        found = list(zip(_posed(rows, where[0]), rows[where[1]][:], strict=True))
    texts = [_reply(each, row, where[1], source) for row, (_, each) in enumerate(found)]
    prompts = [_prompt(each, row, where[0], source) for row, (each, _) in enumerate(found)]
    return _dataset(prompts, source, completion=texts)


def known_preferences(rows: Dataset, *, source: str) -> Dataset:
    """Rows as "prompt", "chosen" and "rejected".

    Where both sides are whole chats, the prompt is the messages that they begin with alike.

    Raises:
        InvalidInput: A column is not there, or a row is empty or does not end as it should.
    """
    sides = ("chosen", "rejected")
    for name in sides:
        if name not in rows.column_names:
            raise InvalidInput(
                f"{source} has no column {name}",
                received=", ".join(rows.column_names),
                allowed="prompt, chosen, rejected; or two chats, chosen and rejected",
                next_step="rename the columns",
            )
    chosen, rejected = (rows[name][:] for name in sides)
    prompts = rows["prompt"][:] if "prompt" in rows.column_names else [None] * len(rows)
    if len(rows) and isinstance(chosen[0], list) and not isinstance(prompts[0], list):
        from trl.data_utils import extract_prompt

        pairs = [
            extract_prompt(
                {"chosen": _messages(one, row, "chosen", source),
                 "rejected": _messages(other, row, "rejected", source)}
            )
            for row, (one, other) in enumerate(zip(chosen, rejected, strict=True))
        ]  # fmt: skip
        prompts, chosen, rejected = ([p[n] for p in pairs] for n in ("prompt", *sides))
    return _dataset(
        [_prompt(each, row, "prompt", source) for row, each in enumerate(prompts)],
        source,
        chosen=[_reply(each, row, "chosen", source) for row, each in enumerate(chosen)],
        rejected=[_reply(each, row, "rejected", source) for row, each in enumerate(rejected)],
    )


def is_chat(rows: Dataset) -> bool:
    """Whether prompts are messages."""
    return len(rows) > 0 and isinstance(rows[0]["prompt"], list)


def _dataset(prompts: list[Prompt], source: str, **texts: list[str]) -> Dataset:
    from datasets import Dataset

    kinds = {type(prompt) for prompt in prompts}
    if len(kinds) > 1:
        raise InvalidInput(
            f"some prompts of {source} are texts, others are messages", next_step="part the rows"
        )
    return Dataset.from_dict({"prompt": prompts, **texts})


def _columns(
    rows: Dataset, prompt: str | None, completion: str | None, source: str
) -> tuple[str, str]:
    names = rows.column_names
    for name in (prompt, completion):
        if name is not None and name not in names:
            raise UnknownName(f"column of {source}", name, names)
    for one, other in _USUAL:
        one, other = prompt or one, completion or other
        if one in names and other in names:
            return one, other
    raise InvalidInput(
        f"{source} has none of the usual columns",
        received=", ".join(names),
        allowed="messages; prompt and completion; instruction, input and output; question and "
        "answer",
        next_step="name the columns (--task.prompt-column, --task.completion-column)",
    )


def _posed(rows: Dataset, column: str) -> list[Any]:
    """The prompts; an instruction with the input that it is about, a blank line between them."""
    prompts = rows[column][:]
    if column != "instruction" or "input" not in rows.column_names:
        return list(prompts)
    return [
        f"{prompt}\n\n{about}" if prompt and about else prompt
        for prompt, about in zip(prompts, rows["input"][:], strict=True)
    ]


def _prompt(value: Any, row: int, column: str, source: str) -> Prompt:
    if isinstance(value, list):
        return _messages(value, row, column, source)
    return _text(value, row, column, source)


def _reply(value: Any, row: int, column: str, source: str) -> str:
    """What follows a prompt: a text, or one message of the assistant."""
    if not isinstance(value, list):
        return _text(value, row, column, source)
    messages = _messages(value, row, column, source)
    roles = [message["role"] for message in messages]
    if roles != ["assistant"]:
        raise InvalidInput(
            f"row {row} of {source} does not end with one answer of the assistant ({column})",
            received=", ".join(roles),
            allowed="one message of the role assistant after the prompt",
            next_step="correct or remove the row",
        )
    return _text(messages[0]["content"], row, column, source)


def _messages(value: Any, row: int, column: str, source: str) -> list[dict[str, str]]:
    messages: Any = [  # ShareGPT calls them "from" and "value"
        {"role": _role(each),
         "content": each.get("content", each.get("value"))}
        for each in value or [] if isinstance(each, dict)
    ]  # fmt: skip
    if not messages or not all(isinstance(v, str) for each in messages for v in each.values()):
        raise InvalidInput(
            f"row {row} of {source} holds no chat in column {column!r}",
            received=f"{value!r:.80}",
            allowed="a list of messages, each with role and content, both texts",
            next_step="correct or remove the row",
        )
    return list(messages)


def _role(message: dict[str, Any]) -> Any:
    role = message.get("role", message.get("from"))
    return _ROLES.get(role, role) if isinstance(role, str) else role


def _text(value: Any, row: int, column: str, source: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(
            f"row {row} of {source} is empty in column {column!r}",
            received=f"{value!r:.60}",
            allowed="a text",
            next_step="fill or remove the row",
        )
    return value


def equal_sides(rows: Dataset) -> Sequence[int]:
    """Numbers of the rows whose two sides are the same."""
    pairs = zip(rows["chosen"][:], rows["rejected"][:], strict=True)
    return [row for row, (one, other) in enumerate(pairs) if one == other]
