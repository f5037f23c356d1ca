"""Tiny random twins: every family in miniature, for tests and `--smoke`, offline.

A twin has two blocks (Swin's three), 32 channels, random weights from a fixed seed, and a toy word
tokenizer, or a processor of small images or short sounds. It is a folder like any other backbone's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from peftkit.backbones._family import Family, families
from peftkit.cache import cache_folder
from peftkit.errors import UnknownName
from peftkit.extras import require_reader

VERSION = 3  # raised whenever a twin changes
WORDS = (
    "the a of to in is and for returns return value array list file name type data model layer "
    "plot axis index column row matrix vector compute given set get create read write card pay "
    "bank money transfer lost new old how what why where can my i you help please not if or"
).split()


def twin_folder(name: str) -> Path:
    """The folder of a family's tiny twin, made on first use.

    Raises:
        UnknownName: No family of that name has a twin.
    """
    known = {family.name: family for family in families().values() if family.twin}
    if name not in known:
        raise UnknownName("tiny twin", name, known, next_step="peftkit list backbones")
    folder = cache_folder() / "twins" / f"{name}-{VERSION}"
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}-"))
    try:
        _make(known[name], temporary)
        os.replace(temporary, folder)
    except OSError:
        if not (folder / "config.json").is_file():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _make(family: Family, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    options = dict(family.twin)
    if family.inputs == "text":
        processor = toy_tokenizer()
        options |= {
            "pad_token_id": processor.pad_token_id,
            "bos_token_id": processor.cls_token_id,
            "eos_token_id": processor.sep_token_id,
            "vocab_size": len(processor),
        }
    else:
        require_reader(family.inputs)
        processor = _toy_processor(**family.twin_processor)
    config = AutoConfig.for_model(**options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        writes = family.pooling == "last" and not config.is_encoder_decoder
        model = (AutoModelForCausalLM if writes else AutoModel).from_config(config)
        for name, parameter in model.named_parameters():
            if name.endswith(family.fixed):
                continue
            if parameter.ndim > 1:
                parameter.data *= 5  # else two blocks of std 0.02 barely change their input
            elif name.endswith("bias"):
                parameter.data.normal_(std=0.1)  # fresh biases are zero, which would hide faults
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _toy_processor(**options: Any) -> Any:
    """An image processor or a feature extractor of sounds."""
    import transformers

    return getattr(transformers, options.pop("class"))(**options)


def toy_tokenizer() -> Any:
    """Words of a short list, single letters for the rest."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'-_()"
    words = dict.fromkeys([*special, *WORDS, *letters, *("##" + c for c in letters)])
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=126,
    )
