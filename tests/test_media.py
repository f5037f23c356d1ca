"""Images and sounds as data: where they may stand, what is refused, what is decoded."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from peftkit import parts
from peftkit.data.decoding import open_image, read_sound, resample, resampled_length, sound_length
from peftkit.errors import InvalidInput, UnknownName
from senses import LABELS, RATE, image_bytes, sound_bytes, toy_image, toy_sound, write_rows

KINDS = ("image", "audio")
MAKE: dict[str, Callable[[int, np.random.Generator], bytes]] = {
    "image": toy_image,
    "audio": toy_sound,
}
SUFFIX = {"image": ".png", "audio": ".flac"}


def load(kind: str, data: Path, **options: Any) -> Any:
    return parts.load("task", f"{kind}_classification")(data=str(data), **options).load(seed=0)


def files(kind: str, count: int = 12, *, seed: int = 5) -> list[tuple[bytes, str]]:
    draw = np.random.default_rng(seed)
    return [(MAKE[kind](i % 3, draw), LABELS[i % 3]) for i in range(count)]


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.table({n: [r[n] for r in rows] for n in rows[0]}), folder / "rows.parquet")
    return folder / "rows.parquet"


# ---- where they may stand


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_storing_them_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    from datasets import Audio, Dataset, Image

    content = files(kind, 30)
    names = [f"{i:02}{SUFFIX[kind]}" for i in range(len(content))]
    labels = [label for _, label in content]
    stored = [{"bytes": data, "path": name} for (data, _), name in zip(content, names, strict=True)]
    for (data, _), name in zip(content, names, strict=True):
        (tmp_path / name).write_bytes(data)
    plain_rows = Dataset(pa.table({kind: stored, "label": labels}))
    declared = plain_rows.cast_column(kind, Image() if kind == "image" else Audio())
    declared.save_to_disk(str(tmp_path / "saved"))
    declared.to_parquet(tmp_path / "declared.parquet")
    plain = [{kind: s, "label": y} for s, y in zip(stored, labels, strict=True)]
    bare = [{kind: s["bytes"], "label": y} for s, y in zip(stored, labels, strict=True)]
    (tmp_path / "bare").mkdir()
    lines = ["file_name,label", *(f"{n},{y}" for n, y in zip(names, labels, strict=True))]
    (tmp_path / "paths.csv").write_text("\n".join(lines) + "\n")
    ways = [
        load(kind, tmp_path / "saved"),
        load(kind, tmp_path / "declared.parquet"),
        load(kind, write(tmp_path, kind, plain)),
        load(kind, write(tmp_path / "bare", kind, bare)),
        load(kind, tmp_path / "paths.csv"),
    ]
    for data in ways:
        assert data.labels == sorted(LABELS)
        assert data.test.column_names == [kind, "label"]
        assert [v["bytes"] for v in data.test[kind]] == [v["bytes"] for v in ways[0].test[kind]]
        assert data.test["label"][:] == ways[0].test["label"][:]
        assert len(data.train) + len(data.validation) + len(data.test) == 30
    assert [v["path"] for v in ways[4].test[kind]] == [v["path"] for v in ways[0].test[kind]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_a_class_is_read_with_and_without_splits(tmp_path: Path, kind: str) -> None:
    for split, count in {"train": 30, "test": 9}.items():
        for i, (data, label) in enumerate(files(kind, count, seed=count)):
            folder = tmp_path / "split" / split / label
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}{SUFFIX[kind].upper()}").write_bytes(data)
    with_splits, without = (
        load(kind, tmp_path / "split"), load(kind, tmp_path / "split" / "train"),
    )  # fmt: skip

    assert with_splits.labels == without.labels == sorted(LABELS)
    assert len(with_splits.test) == 9
    assert len(with_splits.train) + len(with_splits.validation) == 30
    assert len(without.train) + len(without.validation) + len(without.test) == 30
    (tmp_path / "split" / "other").mkdir()
    (tmp_path / "split" / "other" / f"1{SUFFIX[kind]}").write_bytes(b"")
    with pytest.raises(InvalidInput, match="splits or classes"):
        load(kind, tmp_path / "split")


def test_a_folder_of_neither_says_what_a_folder_may_hold(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(InvalidInput, match="a folder a class"):
        load("image", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_files_hold_decides_the_fingerprint(tmp_path: Path, kind: str) -> None:
    found = []
    for seed in (5, 5, 6):
        folder = tmp_path / f"{len(found)}"
        folder.mkdir()
        content = files(kind, 30, seed=seed)
        for i, (data, _) in enumerate(content):
            (folder / f"{i}{SUFFIX[kind]}").write_bytes(data)
        lines = ["path,label", *(f"{i}{SUFFIX[kind]},{y}" for i, (_, y) in enumerate(content))]
        (folder / "rows.csv").write_text("\n".join(lines) + "\n")
        found.append(load(kind, folder / "rows.csv").fingerprint)

    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("kind", KINDS)
def test_subsets_are_nested_and_labels_may_be_noisy(tmp_path: Path, kind: str) -> None:
    folder = write_rows(tmp_path, kind, MAKE[kind])
    small, large, noisy = (
        load(kind, folder, size=9),
        load(kind, folder, size=18),
        load(kind, folder, size=18, label_noise=0.5),
    )
    names = [{v["path"] for v in data.train[kind]} for data in (small, large, noisy)]

    assert names[0] < names[1] == names[2]
    assert sorted(small.train["label"][:]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    wrong = [a != b for a, b in zip(large.train["label"], noisy.train["label"], strict=True)]
    assert sum(wrong) == 9
    assert noisy.notes == ("9 of 18 training labels are wrong on purpose",)
    assert small.chance == pytest.approx(1 / 3)
    everything = load(kind, folder, label_noise=0.5)
    as_many = load(kind, folder, size=len(everything.train), label_noise=0.5)
    by_row = [
        dict(zip([v["path"] for v in data.train[kind]], data.train["label"][:], strict=True))
        for data in (everything, as_many)
    ]
    assert by_row[0] == by_row[1]


# ---- what is refused, before any training


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "0 bytes"), (b"<svg></svg>", "11 bytes"), (None, "cut short")],
)
def test_a_file_that_cannot_be_read_is_named_with_its_row_and_split(
    tmp_path: Path, kind: str, content: bytes | None, reason: str
) -> None:
    if content is None and kind == "audio":
        pytest.skip("libsndfile reads what is there of a file that was cut short")
    write_rows(tmp_path, kind, MAKE[kind])
    rows = pq.read_table(tmp_path / "test.parquet").to_pylist()
    whole = rows[7][kind]["bytes"]
    rows[7][kind]["bytes"] = whole[: len(whole) // 2] if content is None else content
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    with pytest.raises(InvalidInput, match=f"row 7 of the test split .* column '{kind}'") as caught:
        load(kind, tmp_path, size=9)

    assert "test_7" in str(caught.value)
    if content is not None:
        assert reason in str(caught.value)
    assert "Pillow" in str(caught.value) or "libsndfile" in str(caught.value)


def test_a_row_of_a_subset_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    write_rows(tmp_path, "image", toy_image)
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    for row in rows:
        row["image"]["bytes"] = b"broken" if row["label"] == "third" else row["image"]["bytes"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(InvalidInput, match="train split") as caught:
        load("image", tmp_path, size=6)
    number = int(str(caught.value).split("row ")[1].split()[0])

    assert rows[number]["label"] == "third"
    assert rows[number]["image"]["path"] in str(caught.value)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(0), "no samples"),
        (np.full(400, np.nan), "no finite numbers"),
    ],
)
def test_sounds_without_samples_or_with_odd_ones_are_refused(
    tmp_path: Path, samples: np.ndarray, words: str
) -> None:
    write_rows(tmp_path, "audio", toy_sound)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    rows = pq.read_table(tmp_path / "validation.parquet").to_pylist()
    rows[2]["audio"]["bytes"] = file.getvalue()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "validation.parquet")
    with pytest.raises(InvalidInput, match=f"row 2 of the validation split.*{words}"):
        load("audio", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_value_and_a_missing_file_are_refused(tmp_path: Path, kind: str) -> None:
    write_rows(tmp_path, kind, MAKE[kind])
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    for value, words in (
        (None, "no value"),
        ({"bytes": None, "path": "gone.png"}, "gone.png: No such file"),
    ):
        rows[3][kind] = value
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
        with pytest.raises(InvalidInput, match="row 3 of the train split") as caught:
            load(kind, tmp_path)
        assert words in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_column_is_found_or_asked_for(tmp_path: Path, kind: str) -> None:
    content = files(kind, 30)
    rows = [{"left": data, "right": data, "mood": label} for data, label in content]
    path = write(tmp_path, kind, rows)
    with pytest.raises(InvalidInput, match=f"several columns.*--task.{kind}-column"):
        load(kind, path)
    named = load(kind, path, **{f"{kind}_column": "right", "label_column": "mood"})

    assert named.test.column_names == [kind, "label"]
    with pytest.raises(UnknownName, match="'centre'"):
        load(kind, path, **{f"{kind}_column": "centre"})
    with pytest.raises(InvalidInput, match="two parts"):
        load(kind, path, **{f"{kind}_column": "right", "label_column": "right"})
    texts = [{"text": f"a text {i}", "label": label} for i, (_, label) in enumerate(content)]
    with pytest.raises(InvalidInput, match="no column holds"):
        load(kind, write(tmp_path, kind, texts))


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_package_is_said_with_the_command_that_installs_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    hidden = {"PIL", "soundfile"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in hidden else find(name, *a)
    )
    with pytest.raises(InvalidInput, match=rf"pip install 'peftkit\[{kind}\]'"):
        load(kind, tmp_path)


# ---- decoding


def test_images_come_as_rgb_turned_as_their_camera_says() -> None:
    pixels = np.arange(4 * 6 * 3).reshape(4, 6, 3)
    turned = Image.fromarray(pixels.astype(np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    grey = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.uint8)).save(grey, "PNG")

    np.testing.assert_array_equal(np.asarray(open_image(image_bytes(pixels))), pixels)
    np.testing.assert_array_equal(np.asarray(open_image(file.getvalue())), np.rot90(pixels, k=-1))
    np.testing.assert_array_equal(
        np.asarray(open_image(grey.getvalue())), np.repeat(pixels[..., :1], 3, axis=-1)
    )


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_sounds_come_as_one_channel_cut_where_it_is_asked(format: str) -> None:
    left, right = np.linspace(-0.5, 0.5, 100), np.full(100, 0.25)
    content = sound_bytes(np.stack([left, right], axis=1), 50, format=format)
    samples, rate = read_sound(content)
    first, _ = read_sound(content, seconds=0.3)

    assert (rate, sound_length(content)) == (50, (100, 50))
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-4)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(first, samples[:15])


@pytest.mark.parametrize("rates", [(8000, 16000), (44100, 16000), (22050, 4000), (16000, 16000)])
def test_resampling_keeps_a_tone_where_it_was(rates: tuple[int, int]) -> None:
    rate, wanted = rates
    time = np.arange(rate) / rate
    found = resample(np.sin(2 * np.pi * 440 * time).astype(np.float32), rate, wanted)
    expected = np.sin(2 * np.pi * 440 * np.arange(wanted) / wanted)

    assert len(found) == resampled_length(rate, rate, wanted) == wanted
    inner = slice(wanted // 10, -wanted // 10)  # the filter runs over both ends
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-3)
    for length in (1, 7, 999):
        assert len(resample(np.zeros(length, np.float32), rate, wanted)) == resampled_length(
            length, rate, wanted
        )
