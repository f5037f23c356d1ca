"""Audio classification: stock features, fixed and free lengths, masks, a user's way through."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from peftkit import Recipe, load_run, run
from peftkit.backbones import locate
from peftkit.data.decoding import resample
from peftkit.errors import InvalidInput, Unsupported
from peftkit.evaluate import length_batches
from peftkit.settings import Backbone
from peftkit.workbench import Workbench
from senses import LABELS, RATE, sound_bytes, toy_sound, write_rows

pytestmark = pytest.mark.usefixtures("libraries")
WHISPER = "whisper-tiny.en-encoder"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("sounds"), "audio", toy_sound)


@pytest.fixture(scope="module")
def unmasked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A twin like wav2vec2-base: its first layer normalises over time, and it knows no mask."""
    from transformers import AutoModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor

    folder = tmp_path_factory.mktemp("unmasked")
    options = json.loads(
        (locate(Backbone(name="twin:wav2vec2")).folder / "config.json").read_text()
    )
    config = Wav2Vec2Config.from_dict({**options, "feat_extract_norm": "group"})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=4000).save_pretrained(folder)
    return str(folder)


def bench(
    data: Path, where: Path, method: Any = "full", backbone: Any = "twin:whisper", **task: Any
) -> Workbench:
    recipe = Recipe(
        method=method,
        backbone=backbone,
        task={"name": "audio_classification", "data": str(data), **task},
        training={"steps": 3, "batch_size": 4, "precision": "float32"},
    )
    return Workbench(recipe, recipe.task.load(seed=0), where)


def wave(value: dict[str, Any], rate: int) -> np.ndarray:
    samples, own = soundfile.read(io.BytesIO(value["bytes"]), dtype="float32")
    return resample(samples, own, rate)


# ---- against transformers itself


def test_whispers_features_are_those_of_the_stock_extractor(shared: Path, tmp_path: Path) -> None:
    """Of 30 s bit by bit; of a shortened encoder the first frames, where silence follows anyway."""
    from transformers import AutoFeatureExtractor

    weights = shared / "backbones" / WHISPER
    data = shared / "data" / "fsdd"
    stock = AutoFeatureExtractor.from_pretrained(weights)
    whole = bench(data, tmp_path, backbone=str(weights), max_seconds=30, size=20)
    short = bench(data, tmp_path, backbone=str(weights), max_seconds=1, size=20)
    rows = whole.data.test.select(range(3))
    waves = [wave(value, 16000) for value in rows["audio"]]
    expected = stock(waves, sampling_rate=16000, return_tensors="pt")["input_features"]
    found = whole.collate(whole.encode(rows))
    cut = short.collate(short.encode(rows))["input_features"]

    assert max(len(w) for w in waves) < 16000 - 400
    assert set(found) == {"input_features", "labels"}
    assert torch.equal(found["input_features"], expected)
    assert expected.shape[-1] == 3000
    assert torch.equal(cut, expected[..., :100])
    assert [short.recipe.task.length(e) for e in short.encode(rows)] == [50] * 3


def test_a_shortened_encoder_keeps_its_first_positions(shared: Path, tmp_path: Path) -> None:
    """And computes what the whole one does, but for what silence contributes."""
    data, name = shared / "data" / "fsdd", str(shared / "backbones" / WHISPER)
    whole = bench(data, tmp_path, backbone=name, max_seconds=30, size=20).backbone
    short = bench(data, tmp_path, backbone=name, max_seconds=0.57, size=20).backbone
    positions = whole.model.encoder.embed_positions.weight

    assert short.model.config.max_source_positions == 29  # 28.5 positions of 20 ms
    assert torch.equal(short.model.encoder.embed_positions.weight, positions[:29])
    assert whole.total_parameters - short.total_parameters == (1500 - 29) * 384
    assert len(short.layers.blocks) == 4
    assert whole.layers.head == short.layers.head == ("projector", "classifier")


def test_a_waveform_is_normalised_alone_and_then_padded(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoFeatureExtractor

    here = bench(folder, tmp_path, backbone="twin:wav2vec2")
    stock = AutoFeatureExtractor.from_pretrained(here.backbone.location.folder)
    rows = here.data.test
    batch = here.collate(here.encode(rows))
    for row, value in enumerate(rows["audio"]):
        expected = stock(wave(value, 4000), sampling_rate=4000, return_tensors="pt")["input_values"]
        length = expected.shape[1]

        torch.testing.assert_close(batch["input_values"][row, :length], expected[0])
        assert not batch["input_values"][row, length:].any()
        assert batch["attention_mask"][row].sum() == length


def test_frames_are_counted_as_the_convolutions_make_them(folder: Path, tmp_path: Path) -> None:
    here = bench(folder, tmp_path, backbone="twin:wav2vec2")
    examples = here.encode(here.data.test)
    for example in examples:
        batch = here.collate([example])
        del batch["labels"]
        with torch.inference_mode():
            frames = here.backbone.model.wav2vec2(**batch).last_hidden_state.shape[1]
        assert here.recipe.task.length(example) == frames


def test_a_run_on_real_sounds_with_a_real_backbone(shared: Path, tmp_path: Path) -> None:
    record = run(
        Recipe(
            method="linear_probe",
            backbone=str(shared / "backbones" / WHISPER),
            task={
                "name": "audio_classification",
                "data": str(shared / "data" / "fsdd"),
                "size": 60,
                "max_seconds": 0.6,
            },
            training={"steps": 60},
        ),
        tmp_path,
    )

    assert record.data["num_test"] == 150
    assert record.metrics["test"]["accuracy"] > 0.4
    assert "audio resampled from 8000 to 16000 Hz" in record.notes
    assert any("sounds are cut at 0.6 s" in note for note in record.notes)


# ---- sounds of different lengths


def test_without_a_mask_only_equal_lengths_share_a_batch_in_evaluation(
    folder: Path, tmp_path: Path, unmasked: str
) -> None:
    here = bench(folder, tmp_path, backbone=unmasked)
    task, examples = here.recipe.task, here.encode(here.data.test)
    lengths, keys = [task.length(e) for e in examples], [task.key(e) for e in examples]
    predictor = here.predictor(here.attach(here.recipe.method))
    together = predictor.outputs(here.data.test)
    alone = [predictor.outputs(here.data.test.select([i])) for i in range(3)]

    for batch in length_batches(lengths, keys):
        assert len({examples[i]["samples"] for i in batch}) == 1
    np.testing.assert_array_equal(together[:3], np.concatenate(alone))
    assert set(here.collate(examples)) == {"input_values", "labels"}  # zeros, as it was trained
    assert any("knows no mask" in note for note in task.remarks(here.data, here.backbone))


def test_with_a_mask_any_lengths_share_a_batch(folder: Path, tmp_path: Path) -> None:
    here = bench(folder, tmp_path, backbone="twin:wav2vec2")
    task = here.recipe.task

    assert {task.key(e) for e in here.encode(here.data.test)} == {0}
    assert task.remarks(here.data, here.backbone) == [f"audio resampled from {RATE} to 4000 Hz"]


def test_a_sound_shorter_than_one_frame_is_padded_with_silence(
    folder: Path, tmp_path: Path
) -> None:
    for family in ("wav2vec2", "whisper"):
        here = bench(folder, tmp_path, backbone=f"twin:{family}")
        rows = here.recipe.task.rows([str(tmp_path / "short.wav")])
        (tmp_path / "short.wav").write_bytes(sound_bytes(np.full(3, 0.5), format="WAV"))
        logits = here.predictor(here.attach(here.recipe.method)).outputs(rows)

        assert np.isfinite(logits).all()


def test_longer_sounds_are_cut_and_counted(folder: Path, tmp_path: Path) -> None:
    here = bench(folder, tmp_path, backbone="twin:wav2vec2", max_seconds=0.25)
    long = [
        len(wave(value, RATE)) > 0.25 * RATE
        for rows in (here.data.train, here.data.validation, here.data.test)
        for value in rows["audio"]
    ]

    assert f"{sum(long)} of 72 sounds are cut at 0.25 s" in here.data.notes
    assert 0 < sum(long) < 72
    assert max(e["samples"] for e in here.encode(here.data.test)) == 1000  # at 4,000 Hz


def test_max_seconds_is_part_of_what_features_are_kept_by(folder: Path, tmp_path: Path) -> None:
    found = []
    for seconds in (0.1, 0.5):
        here = bench(folder, tmp_path, max_seconds=seconds)
        here.features_folder = tmp_path / "features"
        found.append(np.stack(here.features(here.data.test)))
        assert here.backbone.model.config.max_source_positions == round(50 * seconds)

    assert not np.allclose(found[0], found[1])


@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_features_are_what_the_head_reads(folder: Path, tmp_path: Path, family: str) -> None:
    """The head is affine before its mean, so it may as well come after: the same logits."""
    here = bench(folder, tmp_path, backbone=f"twin:{family}")
    features = torch.from_numpy(np.stack(here.features(here.data.test)))
    model = here.backbone.model
    with torch.inference_mode():
        by_hand = model.classifier(model.projector(features)).numpy()
    logits = here.predictor(model).outputs(here.data.test)

    np.testing.assert_allclose(by_hand, logits, atol=1e-5)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_another_pooling_is_read_by_the_head(folder: Path, tmp_path: Path, pooling: str) -> None:
    here = bench(folder, tmp_path, backbone={"name": "twin:wav2vec2", "pooling": pooling})
    stock = bench(folder, tmp_path, backbone="twin:wav2vec2").backbone.model
    examples = here.encode(here.data.test)[:4]
    for example in examples:
        batch = here.collate([example])
        del batch["labels"]
        with torch.inference_mode():
            hidden = stock.wav2vec2(**batch).last_hidden_state
            features = hidden[:, 0] if pooling == "first" else hidden.mean(1)
            expected = stock.classifier(stock.projector(features))
            torch.testing.assert_close(here.backbone.model(**batch).logits, expected)


def test_what_hides_frames_in_training_is_off(folder: Path, tmp_path: Path) -> None:
    """Else two runs of ten frames would be hidden in each sound, or it would fail."""
    here = bench(folder, tmp_path, backbone="twin:wav2vec2", max_seconds=0.03)
    stock = json.loads((here.backbone.location.folder / "config.json").read_text())
    here.recipe.method.fit(here)

    assert stock["apply_spec_augment"]
    assert stock["mask_time_prob"] > 0
    assert not here.backbone.model.config.apply_spec_augment


def test_a_sum_over_layers_is_refused(folder: Path, tmp_path: Path) -> None:
    weights = shutil.copytree(locate(Backbone(name="twin:wav2vec2")).folder, tmp_path / "weights")
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps({**config, "use_weighted_layer_sum": True}))
    with pytest.raises(Unsupported, match="weighted sum over all layers"):
        _ = bench(folder, tmp_path, backbone=str(weights)).backbone


def test_hubert_is_of_the_family_of_wav2vec2(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    twin = json.loads((locate(Backbone(name="twin:wav2vec2")).folder / "config.json").read_text())
    dropped = ("model_type", "architectures", "transformers_version", "dtype")
    options = {k: v for k, v in twin.items() if k not in dropped}
    AutoModel.from_config(AutoConfig.for_model("hubert", **options)).save_pretrained(tmp_path / "w")
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=4000, return_attention_mask=True)
    extractor.save_pretrained(tmp_path / "w")
    here = bench(folder, tmp_path / "run", "bottleneck", str(tmp_path / "w"))
    predictor = here.recipe.method.fit(here)

    assert here.backbone.layers.family == "wav2vec2"
    assert {len(names) for names in here.backbone.layers.roles.values()} == {2}
    assert predictor.outputs(here.data.test).shape == (18, 3)


# ---- as a user


def test_a_run_is_recorded_used_again_and_told_files(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        method="full",
        backbone="twin:whisper",
        task={"name": "audio_classification", "data": str(folder), "max_seconds": 0.5},
        training={"steps": 150, "learning_rate": 1e-3, "precision": "float32"},
    )
    record = run(recipe, tmp_path / "run")
    saved = load_run(tmp_path / "run")
    metrics = saved.evaluate(folder / "test.parquet")
    draw = np.random.default_rng(9)
    paths = [tmp_path / f"{label}.flac" for label in LABELS]
    for code, path in enumerate(paths):
        path.write_bytes(toy_sound(code, draw))
    answers = saved.predict([str(path) for path in paths])

    assert record.metrics["test"]["accuracy"] > 0.8
    assert metrics["accuracy"] == record.metrics["test"]["accuracy"]
    assert [answer["audio"] for answer in answers] == [str(path) for path in paths]
    assert [answer["label"] for answer in answers] == list(LABELS)
    assert record.notes == [
        f"audio resampled from {RATE} to 16000 Hz",
        "every sound is padded with silence to 0.5 s, which the encoder reads whole",
    ]
    (tmp_path / "empty.wav").write_bytes(sound_bytes(np.zeros(0), format="WAV"))
    with pytest.raises(InvalidInput, match=r"row 0.*no samples"):
        saved.predict([str(tmp_path / "empty.wav")])
