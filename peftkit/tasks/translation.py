"""Translation: a text of one language into another.

A row: `{"en": "I like tea.", "de": "Ich mag Tee."}` with the names of the columns given
(`source_column: en`, `target_column: de`), or the hub's `{"translation": {"en": ..., "de": ...}}`.
The metric is BLEU over all rows (Papineni et al. 2002), as sacrebleu counts it. Chance is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from peftkit.tasks._task import Predictions
from peftkit.tasks._written import WrittenTask

if TYPE_CHECKING:
    import numpy as np

    from peftkit.backbones import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class Translation(WrittenTask):
    """Write a text in another language."""

    metric: ClassVar[str] = "bleu"
    usual_sources: ClassVar[tuple[str, ...]] = ("source", "src", "en")
    usual_targets: ClassVar[tuple[str, ...]] = ("target", "targets", "tgt", "references")

    bleu_tokenizer: Literal["13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none"] = "13a"
    """How sacrebleu cuts words: 13a for languages with spaces, zh for Chinese."""
    source_language: str | None = None
    """Code that the tokenizer of a model of many languages knows, such as eng_Latn or en_XX."""
    target_language: str | None = None
    """Likewise of the language to write."""

    def _measured_by(self) -> tuple[str, ...]:
        from peftkit.tasks._overlap import bleu_signature, meteor_stages, require_metrics

        require_metrics()
        return bleu_signature(self.bleu_tokenizer), meteor_stages()

    def encode(self, rows: Any, backbone: LoadedBackbone, max_length: int) -> Any:
        for option, code in (
            ("src_lang", self.source_language),
            ("tgt_lang", self.target_language),
        ):
            if code is not None:
                _require_language(backbone.processor, code)
                setattr(backbone.processor, option, code)
        return super().encode(rows, backbone, max_length)

    def _generation(self, backbone: LoadedBackbone) -> dict[str, Any]:
        options = super()._generation(backbone)
        if self.target_language is not None:
            options["forced_bos_token_id"] = backbone.processor.convert_tokens_to_ids(
                self.target_language
            )
        return options

    def measure(
        self, predicted: list[str], references: list[list[str]]
    ) -> tuple[Predictions, dict[str, float]]:
        import numpy as np

        from peftkit.tasks._overlap import bleu, bleu_statistics, chrf_and_ter, meteor

        statistics = [
            bleu_statistics(text, true, self.bleu_tokenizer)
            for text, true in zip(predicted, references, strict=True)
        ]
        each = [meteor(text, true) for text, true in zip(predicted, references, strict=True)]
        metrics = {
            "bleu": bleu(np.sum(statistics, axis=0)),
            **chrf_and_ter(predicted, references),
            "meteor": float(np.mean(each)),
        }
        return {"bleu_statistics": statistics}, metrics

    @classmethod
    def item_scores(cls, predictions: Predictions) -> np.ndarray | None:
        import numpy as np

        from peftkit.tasks._overlap import bleu, jackknife

        return jackknife(np.asarray(predictions["bleu_statistics"]), bleu)


def _require_language(tokenizer: Any, code: str) -> None:
    from peftkit.errors import InvalidInput

    if tokenizer.convert_tokens_to_ids(code) in (None, tokenizer.unk_token_id):
        raise InvalidInput(
            "the tokenizer does not know this language",
            received=code,
            allowed="codes of its own, such as those in additional_special_tokens",
            next_step="look them up in the backbone's documentation",
        )
