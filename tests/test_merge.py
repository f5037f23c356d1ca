"""`peftkit merge`: what is refused, what is left, and that nobody needs peftkit to use it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from merging_runs import leave_run
from peftkit.cli import main
from peftkit.errors import InvalidInput, Unsupported, VerificationFailed
from peftkit.merging import fold, shards
from peftkit.merging.check import check
from peftkit.merging.observing import Observed
from peftkit.merging.performing import merge_run
from peftkit.placing import require_free
from peftkit.saved import load_run
from toys import prompted_rows, write_lines

pytestmark = pytest.mark.usefixtures("libraries")
TEXTS = ["how can i pay the bank", "row of a matrix", "why"]


@pytest.fixture(scope="module")
def run(make_bench: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LoRA on a BERT twin."""
    folder = tmp_path_factory.mktemp("lora") / "run"
    leave_run(make_bench("lora", "twin:bert"), folder)
    return folder


@pytest.fixture(scope="module")
def merged(run: Path) -> tuple[Path, dict[str, Any]]:
    """Merged on the command line, and proven in a fresh process; what was printed as JSON."""
    out = run.parent / "merged"
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        status = main(["merge", str(run), "--out", str(out), "--json", "--rows", "12"])
    assert status == 0
    return out, json.loads(told.getvalue())


def quickly(run: Path, out: Path, **options: Any) -> Any:
    return merge_run(run, out, num_rows=6, fresh_process=False, **options)


# ---- what is left


def test_a_merge_is_proven_in_a_fresh_process_and_says_so(
    merged: tuple[Path, dict[str, Any]],
) -> None:
    folder, told = merged

    assert told["to_adapted"]["holds"]
    assert told["to_adapted"]["num_rows"] == 12
    assert 0 <= told["to_adapted"]["largest_difference"] < told["to_adapted"]["tolerance"]
    before, after = told["to_adapted"]["metrics"]["accuracy"]
    assert before == after
    kept = json.loads((folder / "peftkit.json").read_text())
    assert kept["merged"] == told
    assert kept["merged"]["method"]["name"] == "lora"


def test_nothing_but_the_folder_is_left_and_it_is_no_adapter(
    merged: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = merged

    assert {path.name for path in folder.parent.iterdir()} == {"run", "merged"}
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "peftkit.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\nlicense: unknown\n")
    assert "| KL(adapted, merged), nats |" in card


def test_it_is_used_like_a_run(
    run: Path, merged: tuple[Path, dict[str, Any]], toy_folder: Path, capsys: Any
) -> None:
    file = str(toy_folder / "test.csv")
    told = []
    for folder in (run, merged[0]):
        assert main(["evaluate", str(folder), "--data", file, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
        assert main(["predict", str(folder), "--text", TEXTS[0], "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))

    assert told[0] == pytest.approx(told[2], rel=1e-4)
    assert told[1]["label"] == told[3]["label"]
    assert told[1]["probability"] == pytest.approx(told[3]["probability"], rel=1e-4)


def test_the_base_is_not_needed_any_more(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    from peftkit.backbones._twin import twin_folder

    base = shutil.copytree(twin_folder("bert"), tmp_path / "base")
    leave_run(make_bench("lora", str(base)), tmp_path / "run")
    quickly(tmp_path / "run", tmp_path / "merged")
    before = load_run(tmp_path / "run").predict(TEXTS)
    shutil.rmtree(base)

    after = load_run(tmp_path / "merged").predict(TEXTS)

    assert [a["label"] for a in after] == [b["label"] for b in before]


def test_the_chat_template_goes_with_the_model(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}assistant {% endif %}"
    )
    rows = prompted_rows(12, seed=0)
    data = str(write_lines(tmp_path / "data", train=rows, validation=rows, test=rows))
    task = {"name": "instruction", "data": data, "chat_template": str(template),
            "max_new_tokens": 4}  # fmt: skip
    leave_run(make_bench("lora", "twin:llama", task=task), tmp_path / "run")
    before = load_run(tmp_path / "run").predict(["write list name"])
    quickly(tmp_path / "run", tmp_path / "merged")
    there = AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    assert there == template.read_text()
    assert AutoTokenizer.from_pretrained(tmp_path / "run").chat_template == there
    template.unlink()

    assert load_run(tmp_path / "merged").predict(["write list name"]) == before


STOCK = """
import json, sys
sys.modules["peftkit"] = None  # any import of it fails
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer
base, adapter, merged, texts, labels = json.loads(sys.argv[1])
whole = AutoModelForSequenceClassification.from_pretrained(merged)
bare = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels))
adapted = PeftModel.from_pretrained(bare, adapter)
found = {"labels": whole.config.id2label}
for name, model, folder in (("merged", whole, merged), ("adapter", adapted, adapter)):
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        found[name] = model.eval()(**batch).logits.tolist()
print(json.dumps(found))
"""


def test_transformers_and_peft_alone_say_the_same(
    run: Path, merged: tuple[Path, dict[str, Any]]
) -> None:
    from peftkit.backbones._twin import twin_folder

    saved = load_run(run)
    asked = [str(twin_folder("bert")), str(run), str(merged[0]), TEXTS, saved.labels]
    done = subprocess.run(
        [sys.executable, "-c", STOCK, json.dumps(asked)],
        capture_output=True, text=True, check=False, cwd=run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ours = saved.predictor.outputs(saved.recipe.task.rows(TEXTS))

    np.testing.assert_allclose(found["adapter"], ours, atol=1e-5)
    np.testing.assert_allclose(found["merged"], ours, atol=1e-5)
    assert list(found["labels"].values()) == saved.labels


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_cast_once_to_the_format_asked_for(
    run: Path, merged: tuple[Path, dict[str, Any]], tmp_path: Path, dtype: str
) -> None:
    quickly(run, tmp_path / "out", dtype=dtype)

    exact = load_file(merged[0] / "model.safetensors")
    cast = load_file(tmp_path / "out/model.safetensors")
    assert cast.keys() == exact.keys()
    for name, tensor in cast.items():
        assert torch.equal(tensor, exact[name].to(getattr(torch, dtype))), name


def test_tensor_by_tensor_is_as_in_memory_and_in_files_of_a_size(
    run: Path, merged: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "LARGEST", 20_000)
    done = quickly(run, tmp_path / "small")
    monkeypatch.setattr(shards, "LIKE_LORA", ())
    quickly(run, tmp_path / "memory")

    whole = load_file(tmp_path / "memory/model.safetensors")
    files = sorted((tmp_path / "small").glob("model-*.safetensors"))
    parts = {name: tensor for file in files for name, tensor in load_file(file).items()}
    index = json.loads((tmp_path / "small/model.safetensors.index.json").read_text())
    assert done.to_adapted.holds
    assert len(files) > 2
    assert index["weight_map"].keys() == parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_a_vocabulary_that_was_resized_is_merged_in_its_size(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from peftkit.backbones._twin import twin_folder

    model = AutoModelForCausalLM.from_pretrained(twin_folder("llama"))
    rows = model.get_input_embeddings().weight.shape[0] + 11
    model.resize_token_embeddings(rows)
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(twin_folder("llama")).save_pretrained(tmp_path / "base")
    leave_run(make_bench("lora", str(tmp_path / "base")), tmp_path / "run")

    quickly(tmp_path / "run", tmp_path / "merged")

    weights = load_file(tmp_path / "merged/model.safetensors")
    assert weights["model.embed_tokens.weight"].shape[0] == rows


# ---- there and back


def test_merged_unmerged_and_merged_again(make_bench: Callable[..., Any]) -> None:
    bench = make_bench({"name": "lora", "dora": True}, "twin:gpt2")
    model = bench.attach(bench.recipe.method)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3)
    before = {n: p.clone() for n, p in model.named_parameters() if ".base_layer." in n}
    model.merge_adapter()
    once = {n: p.clone() for n, p in model.named_parameters() if ".base_layer." in n}
    with pytest.raises(Unsupported, match="merged already"):
        fold(model)
    model.unmerge_adapter()
    for name, parameter in model.named_parameters():
        if name in before:
            torch.testing.assert_close(parameter, before[name])
    bare = dict(fold(model).named_parameters())

    moved = [n for n in once if not torch.allclose(once[n], before[n], atol=1e-2)]
    assert moved
    for name, weight in once.items():
        own = name.removeprefix("base_model.model.").replace(".base_layer", "")
        torch.testing.assert_close(bare[own], weight)


# ---- what is refused, before any work


def test_a_merged_model_is_not_merged_again(
    merged: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: Any
) -> None:
    assert main(["merge", str(merged[0]), "--out", str(tmp_path / "twice")]) == 2
    assert "is merged already" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_whole_model_needs_no_merge(make_bench: Callable[..., Any], tmp_path: Path) -> None:
    leave_run(make_bench("full", "twin:bert"), tmp_path / "run")

    config = json.loads((tmp_path / "run/config.json").read_text())
    assert list(config["id2label"].values()) == ["finance", "question", "table"]
    assert (tmp_path / "run/README.md").read_text().startswith("---\nlibrary_name: transformers\n")
    with pytest.raises(InvalidInput, match="whole model"):
        quickly(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--base", "dequantized"], "was not quantised"),
        (["--base", "orignal"], "Did you mean 'original'"),
        (["--dtype", "bf16"], "number format 'bf16'"),
        (["--rows", "0"], "verified on rows"),
        (["--rank", "3"], "--rank"),
    ],
)
def test_options_that_do_not_fit(
    run: Path, tmp_path: Path, capsys: Any, options: list[str], words: str
) -> None:
    assert main(["merge", str(run), "--out", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err


def test_places_that_are_taken(run: Path, tmp_path: Path, capsys: Any) -> None:
    own = tmp_path / "mine"
    own.mkdir()
    (own / "thesis.txt").write_text("all of it")
    for out in (own, run, run.parent, run / ".." / "run"):
        for more in ([], ["--overwrite"]):
            assert main(["merge", str(run), "--out", str(out), *more]) == 2
    told = capsys.readouterr().err
    assert "--overwrite does not delete it" in told
    assert told.count("would take the place") == 6
    assert (own / "thesis.txt").read_text() == "all of it"
    assert (run / "adapter_model.safetensors").is_file()


def test_a_folder_that_cannot_be_put_in_place_is_refused_before_any_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for out, said in ((".", "name a folder within it"), ("file/x", "cannot be written")):
        assert main(["merge", str(run), "--out", out]) == 2
        assert said in capsys.readouterr().err


def test_an_export_of_a_merged_model_is_no_merge(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/peftkit.json").write_text('{"merged": {}, "export": {}}')
    with pytest.raises(InvalidInput, match="does not delete it"):
        require_free(tmp_path / "out", [], "merged", overwrite=True)
    require_free(tmp_path / "out", [], "export", overwrite=True)


def test_a_record_that_is_damaged_does_not_undo_a_merge(copy: Path, tmp_path: Path) -> None:
    (copy / "record.json").write_text('{"format": ')
    quickly(copy, tmp_path / "out")

    assert "merged" in (tmp_path / "out/README.md").read_text()


def test_an_earlier_merge_is_replaced_only_if_asked(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    quickly(run, out)
    with pytest.raises(InvalidInput, match="already exists"):
        quickly(run, out, dtype="bfloat16")
    quickly(run, out, dtype="bfloat16", overwrite=True)

    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_earlier_merge_survives_one_that_fails(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    quickly(run, out)
    before = (out / "model.safetensors").read_bytes()

    def other(folder: Path, rows: Any, *, fresh: bool) -> Observed:
        seen = check(folder, rows, fresh=fresh)
        return dataclasses.replace(seen, logits=seen.logits * 1.5)

    monkeypatch.setattr("peftkit.merging.check.check", other)
    with pytest.raises(VerificationFailed, match="behind the last"):
        quickly(run, out, overwrite=True)

    assert (out / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_too_little_room_is_seen_before_anything_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(100, 90, 10))

    with pytest.raises(InvalidInput, match="too little room"):
        quickly(run, tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def test_half_an_adapter_is_refused(copy: Path, tmp_path: Path) -> None:
    path = copy / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(InvalidInput, match="cannot be read"):
        quickly(copy, tmp_path / "out")


def test_a_pickle_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")

    with pytest.raises(InvalidInput, match="pickle"):
        quickly(copy, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.popitem(), "misses 1 tensors"),
        (lambda tensors: tensors.update(more=torch.zeros(2)), "no place for, such as more"),
    ],
)
def test_tensors_missing_or_unknown_are_errors_wherever_a_run_is_loaded(
    copy: Path, change: Callable[[Any], None], words: str
) -> None:
    tensors = load_file(copy / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, copy / "adapter_model.safetensors")

    with pytest.raises(InvalidInput, match=words):
        load_run(copy)


def test_a_merged_model_with_a_missing_tensor_is_no_model(
    merged: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = shutil.copytree(merged[0], tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(InvalidInput, match=r"misses 1 tensors, such as classifier\.weight"):
        load_run(folder)


def test_another_tokenizer_is_another_base(
    copy: Path, make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    manifest = json.loads((copy / "peftkit.json").read_text())
    assert len(manifest["backbone"]["tokenizer_fingerprint"]) == 64
    manifest["backbone"]["tokenizer_fingerprint"] = "0" * 64
    (copy / "peftkit.json").write_text(json.dumps(manifest))

    with pytest.raises(InvalidInput, match="its tokenizer differ"):
        quickly(copy, tmp_path / "out")
    load_run(copy, allow_other_base=True)
