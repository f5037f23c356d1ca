"""Configurations without weights: where they are found, and what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from peftkit.backbones import make_configuration, positions, read_configuration, reader
from peftkit.errors import BackboneNotFound

SHAPES = ROOT / "benchmarks" / "shapes"
# Parameters of the published models, as their cards and `model.num_parameters()` say; of encoders
# without a head (with their pooler).
PUBLISHED = {
    "bert-base-uncased": 109_482_240,
    "roberta-large": 355_359_744,
    "gpt2": 124_439_808,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "qwen2.5-7b": 7_615_616_512,
    "llama-2-7b": 6_738_415_616,
}


def written(path: Path, body: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return str(path)


def test_a_folder_and_a_file_of_any_name_are_read(tmp_path: Path) -> None:
    body = {"model_type": "llama", "hidden_size": 64}
    written(tmp_path / "folder" / "config.json", body)
    file = written(tmp_path / "my_shape.json", body)

    assert read_configuration(str(tmp_path / "folder")) == body
    assert read_configuration(file) == body


def test_bundled_and_twins_have_one() -> None:
    assert read_configuration("bundled")["hidden_size"] == 384
    assert reader(read_configuration("twin:t5")) == "encoder-decoder"


def test_of_the_hub_only_the_configuration_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def download(name: str, file: str, *, revision: str | None = None) -> str:
        asked.append((name, file, revision))
        return written(tmp_path / "config.json", {"model_type": "bert"})

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)

    assert read_configuration("some/model", "v2") == {"model_type": "bert"}
    assert asked == [("some/model", "config.json", "v2")]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("nowhere.json", None, ["no file or folder", "Allowed: a folder with config.json"]),
        ("./nowhere", None, ["no file or folder", "Next: check the path"]),
        ("somebody/no-such-model", None, ["HF_HUB_OFFLINE is set", "Received:", "Allowed:"]),
        ("bad.json", "{", ["cannot be read as a configuration", "Received: Expecting"]),
        ("bad.json", "[1]", ["Received: a list instead of a mapping"]),
        ("bad.json", {"r": 8}, ["names no model_type", "Received: the keys r"]),
    ],
)
def test_what_is_no_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Any, parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        written(tmp_path / name, content)
    with pytest.raises(BackboneNotFound) as error:
        read_configuration(name)

    for part in parts:
        assert part in str(error.value)


def test_a_folder_without_one_says_what_it_holds(tmp_path: Path) -> None:
    written(tmp_path / "adapter_config.json", {})
    with pytest.raises(BackboneNotFound, match=r"Received: adapter_config\.json"):
        read_configuration(str(tmp_path))


def test_an_unknown_architecture_gets_a_suggestion() -> None:
    with pytest.raises(BackboneNotFound, match=r"'lama'.*such as llama"):
        make_configuration({"model_type": "lama"})


def test_a_value_that_transformers_refuses_is_one_message() -> None:
    with pytest.raises(BackboneNotFound, match="transformers refuses this configuration of llama"):
        make_configuration({"model_type": "llama", "hidden_size": "wide"})


def test_reading_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from peftkit.backbones import positions, read_configuration, reader\n"
        f"body = read_configuration({str(SHAPES / 'gpt2.json')!r})\n"
        "assert (reader(body), positions(body)) == ('decoder', 1024)\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "reads", "room"),
    [
        ("bert-base-uncased", "encoder", 512),
        ("roberta-large", "encoder", 512),  # 514 positions, which begin after the padding index
        ("gpt2", "decoder", 1024),
        ("llama-3.1-8b", "decoder", 131072),
    ],
)
def test_shapes_say_what_they_read_and_how_much(name: str, reads: str, room: int) -> None:
    body = read_configuration(str(SHAPES / f"{name}.json"))

    assert reader(body) == reads
    assert positions(body) == room


@pytest.mark.parametrize(
    ("family", "reads", "room"),
    [("t5", "encoder-decoder", None), ("vit", "image", None), ("whisper", "audio", None)],
)
def test_families_say_what_they_read(family: str, reads: str, room: int | None) -> None:
    body = read_configuration(f"twin:{family}")

    assert reader(body) == reads
    assert positions(body) == room


def test_an_unknown_family_is_told_by_its_architecture() -> None:
    body = {"model_type": "no_such", "architectures": ["NoSuchForCausalLM"]}

    assert reader(body) == "decoder"


def test_every_shape_has_the_parameters_of_its_published_model() -> None:
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    assert {path.stem for path in SHAPES.glob("*.json")} == set(PUBLISHED)
    for name, expected in PUBLISHED.items():
        body = read_configuration(str(SHAPES / f"{name}.json"))
        cls = AutoModelForCausalLM if reader(body) == "decoder" else AutoModel
        with torch.device("meta"):
            model = cls.from_config(make_configuration(body))
        model.tie_weights()

        assert sum(p.numel() for p in model.parameters()) == expected, name
