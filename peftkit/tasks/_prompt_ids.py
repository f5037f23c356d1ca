"""Token ids of prompts and of what follows them, plain or as a chat, by the rule of TRL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput

if TYPE_CHECKING:
    from peftkit.backbones import LoadedBackbone


@dataclass(frozen=True)
class Continued:
    """Token ids of a prompt, and of each thing that may follow it; "prompt" and "side" if cut."""

    prompt: list[int]
    sides: list[list[int]]
    cut: tuple[str, ...] = ()


def plain_ids(tokenizer: Any, text: str, sides: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Ids of a prompt, and of each side behind it, which ends with the end-of-text token."""
    end = tokenizer.eos_token
    ended = [text + (side if side.endswith(end) else side + end) for side in sides if side]
    wholes = tokenizer(ended)["input_ids"] if ended else []
    return _parted(_beginning(tokenizer, text), wholes)


def chat_ids(
    tokenizer: Any, template: str, talk: list[dict[str, str]], sides: Sequence[str], row: int
) -> tuple[list[int], list[list[int]]]:
    """Ids of a talk, and of each answer to it, as the template writes them.

    Raises:
        InvalidInput: The template cannot write the row.
    """
    from jinja2.exceptions import TemplateError

    def ids(messages: list[dict[str, str]], **options: Any) -> list[int]:
        options |= {"chat_template": template, "tokenize": True, "return_dict": True}
        return list(tokenizer.apply_chat_template(messages, **options)["input_ids"])

    answers = [[*talk, {"role": "assistant", "content": side}] for side in sides if side]
    try:
        return _parted(ids(talk, add_generation_prompt=True), [ids(each) for each in answers])
    except TemplateError as error:
        raise InvalidInput(
            f"the chat template cannot write row {row}",
            received=f"{', '.join(message['role'] for message in talk)}: {error}",
            next_step="correct the row, or name another --task.chat-template",
        ) from error


def _parted(prompt: list[int], wholes: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """TRL's rule: sides begin where the first of them parts from the prompt alone."""
    from trl.data_utils import common_prefix_length

    n = min((common_prefix_length(prompt, whole) for whole in wholes), default=len(prompt))
    return prompt[:n], [whole[n:] for whole in wholes]


def _beginning(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text that goes on, so without what the tokenizer puts at an end."""
    bare = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer(text)["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[: start + len(bare)]
    return whole


def cut_to(prompt: list[int], sides: list[list[int]], max_length: int, tokenizer: Any) -> Continued:
    """The whole if there is room; else what follows the prompt has half of it, if it needs it."""
    longest = max((len(side) for side in sides), default=0)
    if len(prompt) + longest <= max_length:
        return Continued(prompt, sides)
    kept = last_of(prompt, max(max_length - longest, max_length // 2), tokenizer)
    room = max_length - len(kept)
    cut = {"prompt": len(kept) < len(prompt), "side": longest > room}
    return Continued(kept, [side[:room] for side in sides], tuple(n for n in cut if cut[n]))


def last_of(prompt: list[int], room: int, tokenizer: Any) -> list[int]:
    """The end of a prompt, behind the token that every text begins with, if there is one."""
    if len(prompt) <= room:
        return prompt
    first = prompt[:1] if prompt[0] == tokenizer.bos_token_id else []
    return first + prompt[len(prompt) - room + len(first) :]


def ends_of(tokenizer: Any, backbone: LoadedBackbone) -> list[int]:
    """Ids that end what a decoder writes: what it is taught here, and what it was taught before."""
    own = backbone.model.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    return sorted({tokenizer.eos_token_id, *own} - {None})
