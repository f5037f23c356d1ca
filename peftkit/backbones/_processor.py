"""What turns rows into the inputs of a backbone, read from the backbone's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.backbones._family import Inputs
from peftkit.backbones._locate import Location
from peftkit.errors import BackboneNotFound, InvalidInput
from peftkit.extras import require_reader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_processor(location: Location, *, inputs: Inputs, words: bool = False) -> Any:
    """Load a tokenizer, an image processor or a feature extractor of sounds.

    Args:
        location: The backbone.
        inputs: What rows hold.
        words: Whether texts come split into words, each of which is answered.

    Raises:
        BackboneNotFound: The folder has none that transformers can read.
        InvalidInput: The tokenizer cannot pad, or the package that reads images or sounds is
            missing.
    """
    import transformers

    if inputs == "text":
        # GPT-2's and RoBERTa's read a word as inside a text only if a space stands before it.
        options = {"add_prefix_space": True} if words else {}
        return load_tokenizer(location.folder, location.name, **options)
    require_reader(inputs)
    try:
        if inputs == "audio":
            return transformers.AutoFeatureExtractor.from_pretrained(
                location.folder, trust_remote_code=False
            )
        # Always Pillow: torchvision's resizing gives other pixels where it happens to be installed.
        return transformers.AutoImageProcessor.from_pretrained(
            location.folder, backend="pil", trust_remote_code=False
        )
    except (ValueError, OSError, KeyError) as error:
        raise BackboneNotFound(
            f"{location.name!r} has no processor of {inputs}s that transformers can read",
            received=str(error).splitlines()[0],
            next_step="save preprocessor_config.json beside the weights, or choose a backbone "
            f"that reads {inputs}s",
        ) from error


_VOCABULARIES = ("tokenizer.json", "vocab*", "*.model", "*.spm", "*.tiktoken", "tekken.json")


def _no_tokenizer(name: str, why: str) -> BackboneNotFound:
    return BackboneNotFound(
        f"{name!r} has no tokenizer that transformers can read",
        received=why,
        next_step="save the tokenizer beside the weights (tokenizer.save_pretrained)",
    )


def load_tokenizer(folder: Path, name: str, **options: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer in `folder`; it pads on the right.

    Args:
        folder: Where.
        name: Of the backbone, for messages.
        **options: For transformers.

    Raises:
        BackboneNotFound: transformers cannot read it.
        InvalidInput: It has no token that could pad.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise _no_tokenizer(name, str(error).splitlines()[0]) from error
    if not any(any(folder.glob(pattern)) for pattern in _VOCABULARIES):
        words = set(tokenizer.get_vocab().values()).difference(tokenizer.all_special_ids)
        if len(words) < 2:  # those of bytes have no file; of others transformers makes empty ones
            raise _no_tokenizer(name, f"no vocabulary in {folder}")
    if tokenizer.pad_token is None:
        # Padding is masked everywhere, so any token serves; decoders often bring no other.
        if tokenizer.eos_token is None:
            raise InvalidInput(
                f"the tokenizer of {name!r} has neither a padding nor an end token",
                next_step="add one to tokenizer_config.json",
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer
