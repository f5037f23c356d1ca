"""What tasks have in common whose rows are prompts and what follows them, plain or as a chat.

Prompts and completions become tokens as in TRL's trainers: both are tokenised as one text, and the
completion begins where this parts from the prompt alone. A plain completion ends with the
tokenizer's end-of-text token, a message as its template ends it. What is too long for the model is
cut, and counted: of the prompt the beginning, of the completion the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from peftkit.bounds import Ge
from peftkit.errors import InvalidInput
from peftkit.fields import settle
from peftkit.tasks._prompt_ids import Continued, chat_ids, cut_to, ends_of, last_of, plain_ids
from peftkit.tasks._task import Example, Reads, Task, TaskData

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from peftkit.backbones import LoadedBackbone
    from peftkit.data import Prompt

PROMPT = "{prompt}"
OWN, PLAIN = "own", "plain"
_PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class PromptedTask(Task):
    """Go on from a prompt."""

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForCausalLM",)
    reads: ClassVar[Reads] = "token"
    generates: ClassVar[bool] = True

    size: Annotated[int, Ge(1)] | None = None
    """Training rows, drawn by seed, nested; none: all."""
    max_length: Annotated[int, Ge(16)] = 512
    """Tokens of prompt and completion together."""
    max_new_tokens: Annotated[int, Ge(1)] = 64
    """Tokens of a written answer, at most."""
    template: str | None = None
    """How a plain prompt is posed, such as "Question: {prompt} Answer:"; none: as it is, followed
    by a line break unless it ends in white space."""
    chat_template: str | None = None
    """How messages become a text: "own" (the tokenizer's template), "plain" ("User: ...", a line
    each) or the path of a Jinja template; plain prompts are then messages of the user. None: rows
    are plain."""

    def __post_init__(self) -> None:
        settle(self, "task")
        self.refuse_label_noise("written answers")
        if self.template is not None and PROMPT not in self.template:
            raise InvalidInput(
                "the template has no place for the prompt",
                received=f"task.template {self.template!r}",
                allowed=f"a text with {PROMPT} in it",
            )
        named = self.chat_template
        if named is not None and named not in (OWN, PLAIN) and not Path(named).is_file():
            raise InvalidInput(
                "there is no such chat template",
                received=f"task.chat_template {named!r}",
                allowed=f"{OWN}, {PLAIN}, or the path of a Jinja template",
            )

    def require_template(self, rows: Dataset, source: str) -> None:
        """Raise `InvalidInput` if `rows` are messages and nothing says how to write them."""
        from peftkit.data import is_chat

        if self.chat_template is None and is_chat(rows):
            raise InvalidInput(
                f"the prompts of {source} are messages, and no chat template is named",
                allowed=f"{OWN} (the tokenizer's), {PLAIN}, or the path of a Jinja template",
                next_step=f"add --task.chat-template {OWN}, or {PLAIN} if the tokenizer has none",
            )

    def texts(self, rows: Dataset) -> list[str]:
        return [_as_text(prompt) for prompt in rows["prompt"][:]]

    # ---- examples before the prompt

    def with_shots(self, rows: Dataset, shots: Dataset) -> Dataset:
        if self.chat_template is None:
            before: Any = "".join(
                f"{self._posed(prompt)}{answer}\n\n"
                for prompt, answer in zip(shots["prompt"], self._right(shots), strict=True)
            )
        else:
            before = [
                message
                for prompt, answer in zip(shots["prompt"], self._right(shots), strict=True)
                for message in [*_messages(prompt), {"role": "assistant", "content": answer}]
            ]
        from datasets import Dataset

        columns = {name: rows[name][:] for name in rows.column_names}
        return Dataset.from_dict({**columns, "before": [before] * len(rows)})

    def _right(self, rows: Dataset) -> list[str]:
        """What should follow each prompt."""
        raise NotImplementedError

    # ---- tokens

    def remarks(self, data: TaskData, backbone: LoadedBackbone) -> list[str]:
        import trl.trainer.dpo_trainer  # noqa: F401  # takes a second, which is not of training

        if self.chat_template is not None:
            self._chat_template(backbone)
        return []

    def tokens(
        self, rows: Dataset, columns: Sequence[str], backbone: LoadedBackbone, max_length: int
    ) -> list[Continued]:
        """Token ids of each prompt and of what is in `columns` after it, cut to `max_length`."""
        tokenizer = backbone.processor
        if tokenizer.eos_token is None:
            raise InvalidInput(
                f"the tokenizer of {backbone.location.name} has no end-of-text token",
                next_step="choose a backbone whose tokenizer has one",
            )
        prompts = rows["prompt"][:]
        befores = rows["before"][:] if "before" in rows.column_names else [None] * len(prompts)
        sides = zip(*(rows[name][:] for name in columns), strict=True)
        if self.chat_template is None:
            texts = [
                (before or "") + self._posed(p) for p, before in zip(prompts, befores, strict=True)
            ]
            split = [plain_ids(tokenizer, *row) for row in zip(texts, sides, strict=True)]
        else:
            template = self._chat_template(backbone)
            talks = [_with_before(p, before) for p, before in zip(prompts, befores, strict=True)]
            split = [
                chat_ids(tokenizer, template, talk, side, row)
                for row, (talk, side) in enumerate(zip(talks, sides, strict=True))
            ]
        return [cut_to(prompt, sides, max_length, tokenizer) for prompt, sides in split]

    def _posed(self, prompt: str) -> str:
        if self.template is not None:
            return self.template.replace(PROMPT, prompt)
        return prompt if prompt[-1:].isspace() else f"{prompt}\n"

    def _chat_template(self, backbone: LoadedBackbone) -> str:
        if self.chat_template != OWN:
            return str(template_named(self.chat_template))
        if backbone.processor.chat_template is None:
            raise InvalidInput(
                f"the tokenizer of {backbone.location.name} has no chat template",
                received=f"task.chat_template {OWN}",
                allowed=f"{PLAIN}, or the path of a Jinja template",
                next_step=f"add --task.chat-template {PLAIN}",
            )
        return str(backbone.processor.get_chat_template())

    def noted(self, examples: Sequence[Example], split: str) -> list[str]:
        what = {
            "prompt": "prompts lost their beginning",
            "side": "completions lost their end",
            "asked": "prompts lost their beginning where an answer is written",
        }
        notes = []
        for part, happened in what.items():
            hit = [row for row, example in enumerate(examples) if part in example["_cut"]]
            if hit:
                notes.append(
                    f"{len(hit)} of {len(examples)} {split} {happened}, too long for the model "
                    f"(first: row {hit[0]})"
                )
        return notes

    # ---- what the model writes

    def reply(
        self, model: Any, prompts: Sequence[Sequence[int]], backbone: LoadedBackbone, **options: Any
    ) -> list[str]:
        """What `model` writes after each prompt, in their order."""
        from peftkit.generate import generate

        if not prompts:
            return []
        tokenizer = backbone.processor
        written = generate(
            model, prompts, pad=tokenizer.pad_token_id,
            options={
                "max_new_tokens": self.max_new_tokens,
                "pad_token_id": tokenizer.pad_token_id,
                "eos_token_id": ends_of(tokenizer, backbone),
            },
            **options,
        )  # fmt: skip
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def ask(self, example: Example, each: Continued, max_length: int, tokenizer: Any) -> None:
        """Note in `example` the prompt with room for an answer behind it, as "_asked"."""
        room = max_length - self.max_new_tokens
        if room < 8:
            raise InvalidInput(
                "there is no room for the prompt beside the answer",
                received=f"{max_length} tokens in all, {self.max_new_tokens} for the answer",
                next_step="raise --task.max-length, or lower --task.max-new-tokens",
            )
        example["_asked"] = last_of(each.prompt, room, tokenizer)
        if len(each.prompt) > room:
            example["_cut"] = (*example["_cut"], "asked")


def template_named(name: str | None) -> str | None:
    """The Jinja template that `chat_template` names, unless that is the tokenizer's own."""
    if name == PLAIN:
        return _PLAIN_TEMPLATE
    return None if name is None else Path(name).read_text(encoding="utf-8")


def token_nats(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-probability of each label, 0 where there is none.

    Args:
        logits: `(batch, seq, vocabulary)`.
        labels: `(batch, seq)`, of a position the token that follows it.
    """
    from trl.trainer.utils import selective_log_softmax

    from peftkit.evaluate import IGNORED

    has = labels != IGNORED
    return -selective_log_softmax(logits.float(), labels.where(has, 0)) * has


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]


def _with_before(prompt: Prompt, before: list[dict[str, str]] | None) -> list[dict[str, str]]:
    """The messages of a prompt, examples before it, but behind what the system says."""
    talk = _messages(prompt)
    system = [message for message in talk[:1] if message["role"] == "system"]
    examples = [message for message in before or [] if message["role"] != "system"]
    return [*system, *examples, *talk[len(system) :]]


def _as_text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
