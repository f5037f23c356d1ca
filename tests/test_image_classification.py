"""Image classification: stock pixels, the published classifier, a user's way through."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from peftkit import Recipe, load_run, run
from peftkit.backbones import Head, load, locate
from peftkit.errors import Unsupported
from peftkit.settings import Backbone
from peftkit.tasks.image_classification import ImageClassification
from peftkit.workbench import Workbench
from senses import LABELS, image_bytes, toy_image, write_rows

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("images"), "image", toy_image)


def bench(
    data: Path, where: Path, method: Any = "full", backbone: Any = "twin:vit", **task: Any
) -> Workbench:
    recipe = Recipe(
        method=method,
        backbone=backbone,
        task={"name": "image_classification", "data": str(data), **task},
        training={"steps": 3, "batch_size": 4, "precision": "float32"},
    )
    return Workbench(recipe, recipe.task.load(seed=0), where)


# ---- against transformers itself


def test_pixels_are_those_of_the_stock_processor(shared: Path, tmp_path: Path) -> None:
    """The published ViT's, on the images of a real data set."""
    from transformers import AutoImageProcessor

    weights = shared / "backbones" / "vit-tiny-patch16-224"
    here = bench(shared / "data" / "sign_digits", tmp_path, backbone=str(weights), size=20)
    rows = here.data.test.select(range(5))
    stock = AutoImageProcessor.from_pretrained(weights, backend="pil")
    images = [Image.open(io.BytesIO(value["bytes"])).convert("RGB") for value in rows["image"]]
    batch = here.collate(here.encode(rows))

    assert set(batch) == {"pixel_values", "labels"}
    assert torch.equal(batch["pixel_values"], stock(images, return_tensors="pt")["pixel_values"])
    assert batch["labels"].tolist() == rows["label"][:]
    assert here.recipe.task.length(here.encode(rows)[0]) == 14 * 14


def test_a_published_classifier_keeps_its_head_and_its_answers(shared: Path) -> None:
    """With its own 1,000 classes; the logits are those of transformers."""
    from transformers import AutoConfig, AutoModelForImageClassification

    folder = shared / "backbones" / "vit-tiny-patch16-224"
    names = list(AutoConfig.from_pretrained(folder).id2label.values())
    stock = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    head = Head(auto_classes=ImageClassification.auto_classes, labels=names, inputs="image")
    backbone = Backbone(name=str(folder))
    found = load(backbone, locate(backbone), head, seed=0)
    pixels = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(found.model(pixels).logits, stock(pixels).logits)
    assert not found.head_is_new
    assert len(found.layers.blocks) == 12
    assert found.total_parameters == sum(p.numel() for p in stock.vit.parameters())


@pytest.mark.matrix
@pytest.mark.timeout(1200)
def test_a_run_on_real_images_with_a_real_backbone(shared: Path, tmp_path: Path) -> None:
    """60 test images of sign_digits; ImageNet's features know hands well above chance."""
    signs = shared / "data" / "sign_digits"
    (tmp_path / "data").mkdir()
    test = pq.read_table(signs / "test.parquet").slice(0, 300)
    pq.write_table(test.take(list(range(0, 300, 5))), tmp_path / "data" / "test.parquet")
    few = pq.read_table(signs / "validation.parquet")
    pq.write_table(few.slice(0, 50), tmp_path / "data" / "train.parquet")
    pq.write_table(few.slice(50, 10), tmp_path / "data" / "validation.parquet")
    record = run(
        Recipe(
            method="linear_probe",
            backbone=str(shared / "backbones" / "vit-tiny-patch16-224"),
            task={"name": "image_classification", "data": str(tmp_path / "data")},
            training={"steps": 40},
        ),
        tmp_path / "run",
    )

    assert record.data["num_test"] == len(record.predictions["item"]) == 60
    assert record.data["chance"] < 0.2
    assert record.metrics["test"]["accuracy"] > 0.25
    assert record.costs["head_parameters"] == 192 * 10 + 10


# ---- what heads read


@pytest.mark.parametrize("family", ["vit", "swin"])
@pytest.mark.parametrize("pooling", ["auto", "model", "first", "mean"])
def test_the_head_reads_what_the_recipe_says(
    folder: Path, tmp_path: Path, family: str, pooling: str
) -> None:
    """Against the head applied by hand to hidden states without any pooling of ours."""
    here = bench(folder, tmp_path, backbone={"name": f"twin:{family}", "pooling": pooling})
    stock = bench(folder, tmp_path, backbone=f"twin:{family}").backbone.model
    batch = here.collate(here.encode(here.data.test))
    del batch["labels"]
    with torch.inference_mode():
        hidden = stock.base_model(**batch).last_hidden_state
        own = {"vit": "first", "swin": "mean"}[family]
        how = own if pooling in ("auto", "model") else pooling
        features = hidden[:, 0] if how == "first" else hidden.mean(1)
        expected = here.backbone.model.classifier(features)
        torch.testing.assert_close(here.backbone.model(**batch).logits, expected)

    assert here.backbone.pooling == how
    np.testing.assert_allclose(np.stack(here.features(here.data.test)), features.numpy(), atol=1e-5)


def test_a_backbone_of_no_known_family_has_features_too(folder: Path, tmp_path: Path) -> None:
    """DINOv2's head reads the class token beside the mean of the patches: twice the width."""
    from transformers import AutoModel, Dinov2Config, ViTImageProcessorPil

    options = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 2}
    config = Dinov2Config(image_size=28, patch_size=7, **options)
    AutoModel.from_config(config).save_pretrained(tmp_path / "weights")
    processor = ViTImageProcessorPil(size={"height": 28, "width": 28})
    processor.save_pretrained(tmp_path / "weights")
    name = str(tmp_path / "weights")
    here = bench(folder, tmp_path / "run", "linear_probe", name)
    predictor = here.recipe.method.fit(here)

    assert here.backbone.layers.family == "unknown (module tree)"
    assert here.features(here.data.test)[0].shape == (64,)
    assert predictor.outputs(here.data.test).shape == (18, 3)
    lora = bench(folder, tmp_path / "lora", "lora", name)
    lora.recipe.method.fit(lora)
    with pytest.raises(Unsupported, match="nobody knows"):
        _ = bench(folder, tmp_path, backbone={"name": name, "pooling": "mean"}).backbone


def test_features_are_kept_by_pixels_not_by_files(folder: Path, tmp_path: Path) -> None:
    """Another processor beside the same weights gives other features."""
    import shutil

    here = bench(folder, tmp_path)
    here.features_folder = tmp_path / "features"
    first = here.features(here.data.test)
    other = shutil.copytree(here.backbone.location.folder, tmp_path / "weights")
    settings = (other / "preprocessor_config.json").read_text()
    (other / "preprocessor_config.json").write_text(settings.replace("0.5", "0.4"))
    again = bench(folder, tmp_path)
    changed = bench(folder, tmp_path, backbone=str(other))
    for each in (again, changed):
        each.features_folder = tmp_path / "features"

    np.testing.assert_array_equal(again.features(here.data.test), first)
    assert again.features_seconds > 0
    assert not np.allclose(changed.features(here.data.test), first)
    assert len(list((tmp_path / "features").glob("*.npz"))) == 2


@pytest.mark.parametrize("how", ["centroids", "probe"])
def test_training_may_start_from_a_fitted_head(folder: Path, tmp_path: Path, how: str) -> None:
    here = bench(folder, tmp_path, backbone="twin:swin")
    recipe = here.recipe.override({"training.head_init": how})
    there = Workbench(recipe, here.data, tmp_path)
    model = there.attach(recipe.method)
    logits = there.predictor(model).outputs(here.data.train)

    assert (logits.argmax(1) == here.data.train["label"][:]).mean() > 0.6


# ---- as a user


def test_a_run_is_recorded_used_again_and_told_files(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        method="full",
        backbone="twin:vit",
        task={"name": "image_classification", "data": str(folder)},
        training={"steps": 120, "learning_rate": 3e-3, "precision": "float32"},
    )
    record = run(recipe, tmp_path / "run")
    saved = load_run(tmp_path / "run")
    metrics = saved.evaluate(folder / "test.parquet")
    draw = np.random.default_rng(9)
    paths = [tmp_path / f"{label}.png" for label in LABELS]
    for code, path in enumerate(paths):
        path.write_bytes(toy_image(code, draw))
    answers = saved.predict([str(path) for path in paths])

    assert record.metrics["test"]["accuracy"] > 0.9
    assert metrics["accuracy"] == record.metrics["test"]["accuracy"]
    assert [answer["label"] for answer in answers] == list(LABELS)
    assert [answer["image"] for answer in answers] == [str(path) for path in paths]
    (tmp_path / "broken.png").write_bytes(b"nothing")
    for wrong, words in (("broken.png", "no image format"), ("gone.png", "No such file")):
        with pytest.raises(ValueError, match=words) as caught:
            saved.predict([str(paths[0]), str(tmp_path / wrong)])
        assert "row 1" in str(caught.value)


def test_the_command_predicts_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peftkit.cli import main

    options = ["--backbone", "twin:vit", "--task", "image_classification"]
    options += ["--task.data", str(folder), "--training.steps", "2"]
    assert main(["run", "--method", "lora", *options, "--out", str(tmp_path / "run")]) == 0
    (tmp_path / "one.png").write_bytes(image_bytes(np.zeros((9, 9, 3))))
    capsys.readouterr()

    assert main(["predict", str(tmp_path / "run"), "--file", str(tmp_path / "one.png")]) == 0
    label, probability, name = capsys.readouterr().out.strip().split("\t")
    assert label in LABELS
    assert 0 < float(probability) <= 1
    assert name.endswith("one.png")


def test_text_and_image_do_not_mix(folder: Path, tmp_path: Path, toy_folder: Path) -> None:
    with pytest.raises(Unsupported, match="no AutoModelForImageClassification"):
        _ = bench(folder, tmp_path, backbone="twin:bert").backbone
    recipe = Recipe(method="full", backbone="twin:vit",
                    task={"name": "text_classification", "data": str(toy_folder)})  # fmt: skip
    with pytest.raises(Unsupported, match="no AutoModelForSequenceClassification"):
        _ = Workbench(recipe, recipe.task.load(seed=0), tmp_path).backbone


def test_rows_hold_files_not_pixels(folder: Path, tmp_path: Path) -> None:
    """What stays in memory is what is on disk."""
    here = bench(folder, tmp_path)
    stored = pq.read_table(folder / "train.parquet")["image"].to_pylist()

    assert [e["image"] for e in here.encode(here.data.train)] == [v["bytes"] for v in stored]
