"""Methods that PEFT carries out: their equations written out, and PEFT's others by name."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from peftkit import Recipe
from peftkit.errors import InvalidInput, UnknownName, Unsupported
from peftkit.fields import Typed
from peftkit.methods._passthrough import peft_methods
from peftkit.seeds import seeded

pytestmark = pytest.mark.usefixtures("libraries")


def attached(make_bench: Callable[..., Any], method: Any, family: str) -> tuple[Any, Any, Any]:
    """A bench, its adapted model with strong random parameters, and a padded batch."""
    bench = make_bench(method, f"twin:{family}")
    model = bench.attach(bench.recipe.method).eval()
    with torch.no_grad(), seeded(0, "perturbation"):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    batch = bench.collate(bench.encode(bench.data.train)[:6])
    del batch["labels"]
    return bench, model, batch


def test_ia3_scales_keys_and_values_after_and_the_mlp_before(
    make_bench: Callable[..., Any],
) -> None:
    _, model, _ = attached(make_bench, "ia3", "bert")
    block = model.get_submodule("base_model.model.bert.encoder.layer.0")
    x, wide = torch.randn(3, 32), torch.randn(3, 64)
    key, last = block.attention.self.key, block.output.dense
    with torch.no_grad():
        torch.testing.assert_close(key(x), key.ia3_l["default"].flatten() * key.base_layer(x))
        torch.testing.assert_close(
            last(wide), last.base_layer(wide * last.ia3_l["default"].flatten())
        )
    assert not hasattr(block.attention.self.query, "ia3_l")


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_virtual_tokens_stand_before_the_text(
    make_bench: Callable[..., Any], method: str, family: str
) -> None:
    bench, model, batch = attached(make_bench, method, family)
    base = model.get_base_model()
    with torch.no_grad():
        prompt = model.get_prompt(6)
        text = base.get_input_embeddings()(batch["input_ids"])
        mask = functional.pad(batch["attention_mask"], (10, 0), value=1)
        expected = base(inputs_embeds=torch.cat([prompt, text], 1), attention_mask=mask).logits

        torch.testing.assert_close(model(**batch).logits, expected)
    assert prompt.shape == (6, 10, 32)
    assert bench.virtual_tokens == 10


def test_a_prefix_is_keys_and_values_that_every_position_attends_to(
    make_bench: Callable[..., Any],
) -> None:
    """The first block of BERT, computed by hand from what enters it."""
    _, model, batch = attached(make_bench, {"name": "prefix_tuning", "num_tokens": 3}, "bert")
    base = model.get_base_model()
    caught: dict[str, torch.Tensor] = {}
    attention = base.bert.encoder.layer[0].attention.self
    attention.register_forward_hook(
        lambda module, args, output: caught.update(x=args[0], y=output[0])
    )
    with torch.no_grad():
        model(**batch)
        x, heads = caught["x"], 4
        prefix = model.prompt_encoder["default"].embedding.weight.view(3, 2, 2, heads, 8)

        def split(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.view(*tensor.shape[:2], heads, 8).transpose(1, 2)

        def before(number: int, own: torch.Tensor) -> torch.Tensor:
            first = prefix[:, 0, number].transpose(0, 1).expand(len(x), -1, -1, -1)
            return torch.cat([first, own], dim=2)

        query = split(attention.query(x))
        key, value = before(0, split(attention.key(x))), before(1, split(attention.value(x)))
        mask = functional.pad(batch["attention_mask"], (3, 0), value=1)[:, None, None, :]
        scores = query @ key.transpose(2, 3) / math.sqrt(8)
        weights = scores.masked_fill(mask == 0, -torch.inf).softmax(-1)
        expected = (weights @ value).transpose(1, 2).reshape(x.shape)
        real = batch["attention_mask"].bool()

        torch.testing.assert_close(caught["y"].reshape(x.shape)[real], expected[real])


def test_a_prefix_refuses_gradient_checkpointing_before_anything_runs() -> None:
    with pytest.raises(InvalidInput, match="gradient checkpointing"):
        Recipe(
            method="prefix_tuning",
            task="pydocs/library",
            training={"gradient_checkpointing": True},
        )


def test_last_layers_trains_the_blocks_asked_for(make_bench: Callable[..., Any]) -> None:
    bench = make_bench({"name": "last_layers", "num_layers": 1}, "twin:gpt2")
    model = bench.attach(bench.recipe.method)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}

    assert all(
        name.startswith(f"base_model.model.{part}")
        for name in trained
        for part in [next(p for p in ("transformer.h.1", "transformer.ln_f", "score") if p in name)]
    )
    assert any("ln_f" in name for name in trained)
    assert (
        bench.parameters(model).method
        == sum(
            p.numel() for p in bench.backbone.model.transformer.h[1].original_module.parameters()
        )
        + 2 * 32
    )
    many = make_bench({"name": "last_layers", "num_layers": 3}, "twin:gpt2")
    with pytest.raises(InvalidInput, match="1 to 2"):
        many.attach(many.recipe.method)


# ---- every method of PEFT by its name


def test_the_names_are_those_that_peft_registers() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    ours = {"bottleneck", "bitfit"}
    registered = {member.value.lower() for member in PEFT_TYPE_TO_CONFIG_MAPPING} - ours
    assert set(peft_methods()) == registered
    assert len(registered) > 30


def test_listing_them_imports_neither_torch_nor_peft() -> None:
    code = (
        "import sys; from peftkit.methods._passthrough import peft_methods; "
        "assert 'vera' in peft_methods(); assert not {'torch', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Those that cannot be trained from a recipe alone, or not on an encoder.
REFUSED = {
    "adalora": "moves ranks", "adaption_prompt": "by name only", "cartridge": "document",
    "cpt": "token ids", "multitask_prompt_tuning": "task of each row", "poly": "task of each row",
    "shadow": "hand on objects", "trainable_tokens": "chosen tokens", "xlora": "that exist",
}  # fmt: skip


# PEFT's defaults are for wider layers than a twin's.
SMALL: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 16}, "miss": {"r": 4}, "p_tuning": {"num_virtual_tokens": 4},
    "prefix_tuning": {"num_virtual_tokens": 4}, "prompt_tuning": {"num_virtual_tokens": 4},
    "road": {"group_size": 8}, "shira": {"r": 4}, "vblora": {"vector_length": 16},
    "waveft": {"n_frequency": 64},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's, of BOFT and FRoD on the CPU
@pytest.mark.parametrize("name", peft_methods())
def test_each_learns_on_bert_or_says_why_not(make_bench: Callable[..., Any], name: str) -> None:
    options = SMALL.get(name, {})
    bench = make_bench({"name": f"peft:{name}", **options}, "twin:bert", steps=4)
    if name in REFUSED:
        with pytest.raises(Unsupported, match=REFUSED[name]):
            bench.attach(bench.recipe.method)
        return
    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    again = make_bench({"name": f"peft:{name}", **options}, "twin:bert", seed=4)
    reloaded = again.recipe.method.reload(again, bench.folder)
    expected, found = (p.outputs(bench.data.test) for p in (predictor, reloaded))

    assert predictor.parameters.method > 0
    assert predictor.parameters.head == 32 * 3 + 3
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


@pytest.mark.parametrize("name", peft_methods())
def test_every_default_comes_back_from_plain_data(name: str) -> None:
    """PEFT's hints do not say where None is allowed, and its words are enumerations."""
    recipe = Recipe(method=f"peft:{name}", task="pydocs/library")
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))

    assert again == recipe
    assert again.to_dict() == recipe.to_dict()


def test_options_are_passed_through_and_come_back() -> None:
    recipe = Recipe(method={"name": "peft:vera", "r": 12}, task="pydocs/library")
    again = Recipe.from_dict(recipe.to_dict())

    assert recipe.to_dict()["method"]["name"] == "peft:vera"
    assert again == recipe
    assert again.override({"method.r": "7"}).to_dict()["method"]["r"] == 7
    with pytest.raises(UnknownName, match=r"'method\.rr'"):
        recipe.override({"method.rr": 7})
    with pytest.raises(UnknownName, match="peft:vera"):
        Recipe(method="peft:verra", task="pydocs/library")


def test_ln_tuning_trains_norms(make_bench: Callable[..., Any]) -> None:
    def trained(method: Any) -> set[str]:
        bench = make_bench(method)
        model = bench.attach(bench.recipe.method)
        names = [n for n, p in model.named_parameters() if p.requires_grad]
        return {n.rpartition("LayerNorm")[1] for n in names if not bench.in_head(n)}

    assert trained("peft:ln_tuning") == {"LayerNorm"}
    with pytest.raises(InvalidInput, match="no normalisation layer"):
        trained({"name": "peft:ln_tuning", "target_modules": ["query"]})


@pytest.mark.parametrize(
    ("method", "error", "words"),
    [
        ({"name": "peft:lora", "layers_to_transform": [0]}, InvalidInput, "has no effect"),
        ({"name": "lora", "targets": []}, InvalidInput, "no layers are named"),
        ({"name": "peft:vera", "r": 0}, Unsupported, "does not put vera"),
        ({"name": "lora", "rank_pattern": {"qury": 4}}, InvalidInput, "a layer that is not"),
        ({"name": "lora", "init": "pissa", "rank": 64}, InvalidInput, "a rank up to 32"),
    ],
)
def test_options_that_would_do_nothing_or_fail_are_refused(
    make_bench: Callable[..., Any], method: Any, error: type[Exception], words: str
) -> None:
    bench = make_bench(method)
    with pytest.raises(error, match=words):
        bench.recipe.method.fit(bench)


def test_a_mapping_is_given_as_json_on_the_command_line() -> None:
    typed = Recipe(method="lora", task="pydocs/library").override(
        {"method.rank_pattern": Typed('{"query": 4}')}
    )

    assert typed.to_dict()["method"]["rank_pattern"] == {"query": 4}
    with pytest.raises(InvalidInput, match="a mapping"):
        Recipe(method={"name": "lora", "rank_pattern": {"query": 0}}, task="pydocs/library")


def test_targets_are_resolved_in_the_blocks(make_bench: Callable[..., Any]) -> None:
    bench = make_bench({"name": "peft:loha", "target_modules": ["query"]}, "twin:llama")
    model = bench.attach(bench.recipe.method)
    trained = {n for n, p in model.named_parameters() if p.requires_grad and not bench.in_head(n)}

    assert trained
    assert all(".self_attn.q_proj." in name for name in trained)


def test_layers_that_peft_cannot_adapt_are_refused(make_bench: Callable[..., Any]) -> None:
    bench = make_bench({"name": "peft:loha", "target_modules": ["query"]}, "twin:gpt2")
    with pytest.raises(Unsupported, match="Conv1D"):
        bench.attach(bench.recipe.method)
