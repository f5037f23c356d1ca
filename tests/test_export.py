"""Runs in formats of others: equal answers, refusals, and nothing half written."""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from exported import KINDS, Trained, leave_run
from peftkit import parts
from peftkit.cli import main
from peftkit.saved import GRAPHS

LLAMA_CPP = os.environ.get("PEFTKIT_LLAMA_CPP", "")
pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="session")
def trained(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a function that gives the folder of a run, by kind, method and family."""
    known: dict[str, Path] = {}
    shared = tmp_path_factory.mktemp("exported")

    def make(kind: str, method: Any = "lora", family: str | None = None, **backbone: Any) -> Path:
        key = repr((kind, method, family, backbone))
        if key not in known:
            out = tmp_path_factory.mktemp(kind) / "run"
            known[key] = leave_run(out, kind, method, shared, family, **backbone)
        return known[key]

    return make


@pytest.fixture(scope="session")
def in_onnx(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a function that exports a run to ONNX, once; half a dozen seconds each."""
    known: dict[str, Path] = {}

    def make(kind: str, method: Any = "lora") -> Path:
        key = repr((kind, method))
        if key not in known:
            known[key] = tmp_path_factory.mktemp("onnx") / "out"
            assert export(trained(kind, method), "onnx", known[key]) == 0
        return known[key]

    return make


def export(run: Path, name: str, out: Path, *options: str) -> int:
    return main(["export", str(run), "--format", name, "--out", str(out), *options])


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "peftkit.json").read_text("utf-8"))["export"]
    return found


def answers(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What `predict` prints, to three digits."""
    capsys.readouterr()
    assert main(["predict", str(folder), "--text", text]) == 0
    return capsys.readouterr().out.splitlines()


# ---- graphs

TEXTS = {
    "classifier": "pay the card and the bank",
    "tagger": "pay the unbelievable bank column",
    "answerer": "what money is in it ? the file of pay returns column",
    "decoder": "write list file name",
}


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_answers_as_the_adapted_model_in_every_shape(
    kind: str, trained: Trained, in_onnx: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    out = in_onnx(kind)
    agreement = about(out)["agreement"]

    assert agreement["num_rows"] == 12
    assert 0 <= agreement["largest_difference"] < 1e-4
    assert agreement["equal_predictions"] == 1.0
    assert bool(agreement["metrics"]) == (kind != "decoder")  # it writes, and is compared by tokens
    for before, after in agreement["metrics"].values():
        assert after == pytest.approx(before, abs=1e-5)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert {tuple(value.shape) for value in session.get_inputs()} == {("batch", "sequence")}
    assert answers(out, TEXTS[kind], capsys) == answers(trained(kind), TEXTS[kind], capsys)
    file = out / "model.onnx"
    assert answers(file, TEXTS[kind], capsys) == answers(out, TEXTS[kind], capsys)
    assert places_of_this_machine(out) == []


def test_onnx_writes_with_the_penalty_and_the_ends_of_the_base(
    in_onnx: Trained, tmp_path: Path
) -> None:
    """As transformers does with the same configuration on the same logits."""
    import torch
    from transformers import GenerationConfig, RepetitionPenaltyLogitsProcessor

    from peftkit.saved import load_run
    from peftkit.tasks._prompt_ids import ends_of

    out = Path(shutil.copytree(in_onnx("decoder"), tmp_path / "out"))
    own = GenerationConfig.from_pretrained(out)
    own.repetition_penalty, own.eos_token_id = 1.5, [3, 9]
    own.save_pretrained(out)
    saved = load_run(out)
    predictor: Any = saved.predictor
    model, bench = predictor.model, predictor.bench
    texts = [[5, 6, 7, 8], [9, 9, 4]]
    scores = torch.cat([model(
        input_ids=torch.tensor([text]), attention_mask=torch.ones(1, len(text), dtype=torch.long)
    ).logits[:, -1] for text in texts])  # fmt: skip
    discount = RepetitionPenaltyLogitsProcessor(1.5)
    expected = [
        int(discount(torch.tensor([text]), row[None].clone()).argmax())
        for text, row in zip(texts, scores, strict=True)
    ]

    assert model.penalty == 1.5
    assert model._next(texts, 0) == expected
    assert set(ends_of(bench.backbone.processor, bench.backbone)) >= {3, 9}


def places_of_this_machine(folder: Path) -> list[str]:
    """Files that say where peftkit or Python are installed here."""
    here = [place.encode() for place in (sys.prefix, str(Path(__file__).parents[1]))]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if any(place in path.read_bytes() for place in here)]


def test_one_changed_weight_in_the_file_is_caught(trained: Trained, in_onnx: Trained) -> None:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    from peftkit.errors import VerificationFailed
    from peftkit.exporting.adapted import load_adapted
    from peftkit.formats.onnx import ONNX

    run, out = load_adapted(trained("classifier")), in_onnx("classifier")
    broken = out.with_name("broken")
    shutil.copytree(out, broken)
    model = onnx.load(broken / "model.onnx")
    bias = next(t for t in model.graph.initializer if tuple(t.dims) == (3,))  # the classes' own
    values = numpy_helper.to_array(bias).copy()
    values[0] += np.float32(0.01)
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    (broken / "model.onnx.data").unlink()
    onnx.save(model, broken / "model.onnx")

    right, wrong = ONNX().verify(run, out), ONNX().verify(run, broken)

    assert wrong.largest_difference == pytest.approx(0.01, rel=0.01)
    ONNX().accept(run, right)
    with pytest.raises(VerificationFailed, match=r"largest difference is 0\.01"):
        ONNX().accept(run, wrong)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("tagger", "prompt_tuning"),
     pytest.param("decoder", "prefix_tuning", marks=pytest.mark.matrix)],
)  # fmt: skip
def test_a_torch_program_holds_what_does_not_fold(
    kind: str, method: str, trained: Trained, tmp_path: Path
) -> None:
    import torch

    out = tmp_path / "program"
    assert export(trained(kind, method), "torch", out) == 0

    assert about(out)["virtual_tokens"] == 10
    assert places_of_this_machine(out) == []
    assert about(out)["agreement"]["largest_difference"] < 1e-4
    program = torch.export.load(str(out / "model.pt2")).module()
    for length in (3, 7):
        ids = torch.full((2, length), 9)
        found = program(input_ids=ids, attention_mask=torch.ones_like(ids))
        assert list(found) == ["logits"]
        assert found["logits"].shape[:2] == (2, length)


def test_a_head_that_reads_the_last_token_does_not_depend_on_the_batch(trained: Trained) -> None:
    """`len` of a tensor was traced as a number: right for the batch that was traced only."""
    import torch

    from peftkit.backbones import pool_vectors

    class Pool(torch.nn.Module):
        def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return pool_vectors(hidden, mask, "last")

    batch = torch.export.Dim("batch")
    program = torch.export.export(
        Pool(), (torch.randn(3, 4, 2), torch.ones(3, 4)), dynamic_shapes=({0: batch}, {0: batch})
    )
    hidden = torch.randn(5, 4, 2)
    mask = torch.tensor([[1.0, 1, 0, 0]] * 5)
    assert torch.equal(program.module()(hidden, mask), hidden[:, 1])


# ---- adapters


@pytest.mark.parametrize(
    ("method", "dtype"),
    [("lora", "float32"), ("lora", "bfloat16"), ("ia3", "float32"), ("prompt_tuning", "float32")],
)
def test_an_adapter_is_loaded_by_peft_alone(
    method: str, dtype: str, trained: Trained, tmp_path: Path
) -> None:
    run, out = trained("tagger", method, None, dtype=dtype), tmp_path / "adapter"
    assert export(run, "adapter", out) == 0

    assert about(out)["agreement"]["largest_difference"] < 1e-5
    names = {path.name for path in out.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_vllm_gets_plain_lora_of_a_decoder(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "served"
    assert export(trained("decoder"), "vllm", out, "--rows", "4") == 0

    assert about(out)["max_lora_rank"] == 8
    assert about(out)["agreement"]["num_rows"] == 4


@pytest.mark.parametrize(
    ("kind", "method", "family", "name", "reason"),
    [
        ("decoder", {"name": "lora", "dora": True}, None, "vllm", "DoRA"),
        ("decoder", {"name": "lora", "rank_pattern": {"q_proj": 4}}, None, "vllm", "rank of"),
        ("decoder", "ia3", None, "vllm", "it is IA3, and no LoRA"),
        ("decoder", "lora", "gpt2", "vllm", "takes no adapters for gpt2"),
        ("tagger", "lora", None, "vllm", "a head of its own"),
        ("decoder", "bottleneck", None, "adapter", "a tuner of peftkit's own"),
        ("decoder", "full", None, "adapter", "leaves no adapter"),
        ("classifier", "prompt_tuning", "llama", "adapter", "behind virtual tokens"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_what_to_do(
    kind: str, method: Any, family: str | None, name: str, reason: str,
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, out = trained(kind, method, family), tmp_path / "out"
    capsys.readouterr()

    assert export(run, name, out) == 1
    message = capsys.readouterr().err
    assert reason in message
    assert "Next: " in message
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_transformers_lacks_is_no_adapter_for_others(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("classifier", "lora", None, pooling="mean")
    capsys.readouterr()

    assert export(run, "adapter", tmp_path / "out") == 1
    assert "the mean of the tokens" in capsys.readouterr().err


def test_packed_weights_are_no_graph(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("classifier", "lora", None, quantization="nf4")
    capsys.readouterr()

    assert export(run, "onnx", tmp_path / "out") == 1
    assert "--base dequantized" in capsys.readouterr().err


# ---- GGUF: the converter is not at hand, so what it would write is written here


def write_gguf(model: Any, tokenizer: Any, file: Path) -> None:
    """A decoder of Llama's family as llama.cpp's converter writes it: rows of q and k paired."""
    import gguf

    config = model.config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_name("toy")
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        for part, count in (("q_proj", heads), ("k_proj", groups)):
            if part in name:
                pairs = values.reshape(count, 2, values.shape[0] // count // 2, -1)
                values = pairs.swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A converter that is found, and whose work `write_gguf` does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from peftkit.formats.gguf import GGUF

    def convert(self: GGUF, plain: Path, file: Path, kind: str) -> None:
        assert kind == "f32"
        model = AutoModelForCausalLM.from_pretrained(plain, dtype="float32")
        write_gguf(model, AutoTokenizer.from_pretrained(plain), file)

    monkeypatch.setattr(GGUF, "convert", convert)
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / "convert_hf_to_gguf.py").write_text("raise SystemExit('no such model')\n")
    return folder


@pytest.mark.parametrize("name", ["gguf", "ollama"])
def test_gguf_is_read_back_tensor_by_tensor(
    name: str, trained: Trained, converter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert export(trained("decoder"), name, out, "--llama-cpp", str(converter)) == 0

    assert about(out)["agreement"]["largest_difference"] < 1e-5
    assert not (out / "plain").exists()
    if name == "ollama":
        text = (out / "Modelfile").read_text(encoding="utf-8")
        assert 'FROM ./model.gguf\nTEMPLATE """{{ .Prompt }}\n"""\n' in text
        assert "PARAMETER num_predict 6\n" in text
        assert 'PARAMETER stop "[SEP]"\n' in text


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("weight", "self_attn.q_proj.weight is off by up to 0.5"),
        ("missing", "mlp.up_proj.weight is missing"),
        ("end", "the eos token is 7 in the GGUF file"),
    ],
)
def test_a_gguf_file_that_is_not_the_model_is_caught(
    fault: str, said: str, trained: Trained, converter: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from peftkit.formats.gguf import GGUF

    right = GGUF.convert

    def wrong(self: GGUF, plain: Path, file: Path, kind: str) -> None:
        import gguf

        add, end = gguf.GGUFWriter.add_tensor, gguf.GGUFWriter.add_eos_token_id

        def add_wrong(writer: Any, name: str, values: Any) -> None:
            if fault == "weight" and name == "blk.0.attn_q.weight":
                values = values.copy()
                values[3, 2] += 0.5
            if not (fault == "missing" and "ffn_up" in name):
                add(writer, name, values)

        with monkeypatch.context() as patch:
            patch.setattr(gguf.GGUFWriter, "add_tensor", add_wrong)
            if fault == "end":
                patch.setattr(gguf.GGUFWriter, "add_eos_token_id", lambda w, _: end(w, 7))
            right(self, plain, file, kind)

    monkeypatch.setattr(GGUF, "convert", wrong)
    out = tmp_path / "out"

    assert export(trained("decoder"), "gguf", out, "--llama-cpp", str(converter)) == 1
    assert said in capsys.readouterr().err
    assert not out.exists()


LORA_CONVERTER = """
import json, sys
import gguf
from pathlib import Path
from safetensors.numpy import load_file

folder, options = Path(sys.argv[1]), dict(zip(sys.argv[2::2], sys.argv[3::2]))
config = json.loads((Path(options["--base"]) / "config.json").read_text())
adapter = json.loads((folder / "adapter_config.json").read_text())
writer = gguf.GGUFWriter(options["--outfile"], "llama")
writer.add_float32("adapter.lora.alpha", adapter["lora_alpha"] FAULT)
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
for key, value in load_file(folder / "adapter_model.safetensors").items():
    name, _, part = key.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
    count = heads.get(name.rpartition(".")[2])
    if part == "lora_B" and count:  # rows in pairs, as llama.cpp rotates them
        pairs = value.reshape(count, 2, len(value) // count // 2, -1)
        value = pairs.swapaxes(1, 2).reshape(value.shape)
    writer.add_tensor(f"{names.get_name(name)}.weight.{part.lower()}", value.copy())
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""


@pytest.mark.parametrize("method", ["lora", {"name": "lora", "rslora": True, "rank": 4}], ids=str)
def test_a_lora_alone_is_read_back_from_gguf(trained: Trained, tmp_path: Path, method: Any) -> None:
    script = tmp_path / "convert_lora_to_gguf.py"
    script.write_text(LORA_CONVERTER.replace("FAULT", ""))
    run, out = trained("decoder", method), tmp_path / "out"

    assert export(run, "gguf_adapter", out, "--llama-cpp", str(tmp_path)) == 0
    assert about(out)["agreement"]["equal_predictions"] == 1.0
    assert {path.name for path in out.iterdir()} == {"adapter.gguf", "peftkit.json"}


def test_a_lora_of_packed_weights_is_no_lora_of_llama_cpp(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "convert_lora_to_gguf.py").write_text(LORA_CONVERTER)
    run = trained("decoder", "lora", None, quantization="nf4")

    assert export(run, "gguf_adapter", tmp_path / "out", "--llama-cpp", str(tmp_path)) == 1
    assert "packed as nf4" in capsys.readouterr().err


def test_a_wrong_scale_in_gguf_is_caught(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "convert_lora_to_gguf.py").write_text(LORA_CONVERTER.replace("FAULT", "* 2"))
    out = tmp_path / "out"

    assert export(trained("decoder"), "gguf_adapter", out, "--llama-cpp", str(tmp_path)) == 1
    assert "do not answer as the run does" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(not LLAMA_CPP, reason="PEFTKIT_LLAMA_CPP names no folder of llama.cpp")
@pytest.mark.parametrize("name", ["gguf", "ollama", "gguf_adapter"])
def test_the_converter_of_llama_cpp_writes_what_was_adapted(
    name: str, trained: Trained, tmp_path: Path, shared: Path
) -> None:
    out = tmp_path / "out"  # it knows no tokenizers of toys
    run = trained("decoder", name=str(shared / "backbones" / "stories260k-llama"))
    assert export(run, name, out, "--llama-cpp", LLAMA_CPP) == 0
    assert about(out)["agreement"]["equal_predictions"] == 1.0
    assert (out / "Modelfile").exists() == (name == "ollama")


def test_a_converter_that_fails_is_quoted(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text("raise SystemExit('no such model')\n")

    assert export(trained("decoder"), "gguf", tmp_path / "out", "--llama-cpp", str(script)) == 1
    assert "it said: no such model" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [script]


# ---- requests that cannot be honoured, and what a failure leaves


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "onx"], ["unknown format 'onx'", "Did you mean 'onnx'?"]),
        (["--format", "gguf"], ["llama.cpp's own converter", "--llama-cpp PATH"]),
        (["--format", "gguf", "--llama-cpp", "nowhere"], ["there is no convert_hf_to_gguf.py"]),
        (["--format", "onnx", "--llama-cpp", "x"], ["says nothing to the format onnx"]),
        (["--format", "onnx", "--rows", "0"], ["nothing can be compared"]),
        (["--format", "onnx", "--quick"], ["unknown option '--quick'"]),
        ([], ["--format is missing"]),
    ],
)
def test_a_request_that_cannot_be_honoured_is_refused_before_work(
    options: list[str], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "nowhere", "--out", str(tmp_path / "out"), *options]) == 2
    message = capsys.readouterr().err
    for part in said:
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_a_graph_is_not_exported_again(
    in_onnx: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(in_onnx("decoder"), "torch", tmp_path / "out") == 2
    assert "is an export already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_no_fault_of_the_model() -> None:
    from peftkit.formats._traced import _raise_if_of_disk

    _raise_if_of_disk(OSError("could not get source code"))
    with pytest.raises(OSError, match="No space left"):
        _raise_if_of_disk(OSError(errno.ENOSPC, "No space left on device"))


def test_two_graphs_are_loaded_at_once(in_onnx: Trained) -> None:
    from peftkit import load_runs

    runs = load_runs({"one": in_onnx("classifier"), "two": in_onnx("classifier")})
    text = TEXTS["classifier"]
    assert runs["one"].predict([text]) == runs["two"].predict([text])


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert main(["export", "nowhere", "--format", "onnx", "--out", "out"]) == 2
    assert "pip install 'peftkit[export]'" in capsys.readouterr().err


def test_nothing_is_overwritten_without_asking(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("kept")
    run = trained("decoder")

    assert export(run, "adapter", out) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert export(run, "adapter", out, "--overwrite") == 2
    assert "holds no earlier export" in capsys.readouterr().err
    assert (out / "mine").read_text() == "kept"
    (out / "peftkit.json").write_text('{"export": {}}')
    assert export(run, "adapter", run) == 2
    assert export(run, "adapter", run.parent, "--overwrite") == 2
    assert "the place of what it is made of" in capsys.readouterr().err
    assert export(run, "adapter", out, "--overwrite") == 0
    assert not (out / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("fault", ["write", "verify", "killed"])
def test_what_fails_leaves_nothing_that_looks_whole(
    fault: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    from peftkit.formats._stock import AdapterFormat

    out, right = tmp_path / "out", AdapterFormat.write
    out.mkdir()
    (out / "peftkit.json").write_text('{"export": {}}')
    (out / "mine").write_text("kept")

    def wrong(self: Any, run: Any, folder: Path) -> None:
        right(self, run, folder)
        assert not (folder / "peftkit.json").exists()
        if fault == "write":
            raise OSError(28, "No space left on device")
        if fault == "killed":
            raise KeyboardInterrupt
        weights = load_file(folder / "adapter_model.safetensors")
        weights[max(weights)].view(-1)[0] += 0.5
        save_file(weights, folder / "adapter_model.safetensors")

    monkeypatch.setattr(AdapterFormat, "write", wrong)
    status = export(trained("decoder"), "adapter", out, "--overwrite")
    assert status == {"write": 1, "verify": 1, "killed": 130}[fault]
    assert (out / "mine").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_outright_it_leaves_nothing_that_looks_whole(
    trained: Trained, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "peftkit", "export", str(trained("decoder"))]
    process = subprocess.Popen(
        [*command, "--format", "onnx", "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not list(tmp_path.glob(".out.*/new/*")) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    _, said = process.communicate()

    assert process.returncode == -signal.SIGKILL, said
    assert not out.exists()
    assert all(path.name.startswith(".out.") for path in tmp_path.iterdir())
    assert not list(tmp_path.rglob("peftkit.json"))


def test_too_little_room_is_seen_before(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))

    assert export(trained("decoder"), "adapter", tmp_path / "out") == 2
    assert "too little room" in capsys.readouterr().err


def test_rows_that_are_gone_are_stood_in_for(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained("answerer"), run)
    manifest = json.loads((run / "peftkit.json").read_text(encoding="utf-8"))
    manifest["recipe"]["task"]["data"] = str(tmp_path / "gone")
    (run / "peftkit.json").write_text(json.dumps(manifest), encoding="utf-8")

    assert export(run, "adapter", tmp_path / "out", "--rows", "5") == 0
    assert about(tmp_path / "out")["rows"] == "paragraphs of Python's language reference"
    assert about(tmp_path / "out")["agreement"]["num_rows"] == 5


def test_what_an_export_is_for_others_says_so(
    trained: Trained, converter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export(trained("decoder"), "gguf", out, "--llama-cpp", str(converter), "--json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == "gguf"

    assert main(["predict", str(out), "--text", "write"]) == 2
    assert "which is for others" in capsys.readouterr().err
    manifest = json.loads((out / "peftkit.json").read_text("utf-8"))
    for name in GRAPHS:
        manifest["export"]["format"] = name
        (out / "peftkit.json").write_text(json.dumps(manifest))
        if name != "onnx":
            assert main(["predict", str(out), "--text", "write"]) == 2
            assert "which is for others" in capsys.readouterr().err


def test_rows_whose_labels_are_others_by_now_give_no_metrics(
    trained: Trained, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained("classifier"), tmp_path / "run"))
    manifest = json.loads((run / "peftkit.json").read_text("utf-8"))
    manifest["labels"] = [f"other {name}" for name in manifest["labels"]]
    (run / "peftkit.json").write_text(json.dumps(manifest))
    assert export(run, "adapter", tmp_path / "out") == 0

    assert about(tmp_path / "out")["agreement"]["metrics"] == {}


def test_every_format_says_what_it_is() -> None:
    for name in parts.find("format"):
        cls = parts.load("format", name)
        assert parts.name_of(cls) == name
        assert (cls.__doc__ or "").splitlines()[0].endswith(".")
    known = {"adapter", "gguf", "gguf_adapter", "merged", "ollama", "onnx", "torch", "vllm"}
    assert known == set(parts.find("format"))


def test_merged_is_what_merge_writes(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from peftkit.merging import performing

    here = functools.partial(performing.merge_run, fresh_process=False)  # else: tests/test_merge.py
    monkeypatch.setattr(performing, "merge_run", here)
    out = tmp_path / "merged"
    assert export(trained("tagger"), "merged", out) == 0

    manifest = json.loads((out / "peftkit.json").read_text(encoding="utf-8"))
    assert manifest["merged"]["to_adapted"]["holds"] is True
    assert manifest["export"]["agreement"]["largest_difference"] < 1e-4
    assert (out / "model.safetensors").is_file()
    assert answers(out, TEXTS["tagger"], capsys) == answers(
        trained("tagger"), TEXTS["tagger"], capsys
    )
