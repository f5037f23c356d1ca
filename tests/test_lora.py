"""LoRA and its variants against their equations, written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from peftkit.errors import InvalidInput
from peftkit.seeds import seeded

pytestmark = pytest.mark.usefixtures("libraries")
QUERY = "bert.encoder.layer.0.attention.self.query"


def attached(make_bench: Callable[..., Any], **options: Any) -> tuple[Any, Any]:
    """A LoRA of strong random factors on a BERT twin, and its first query projection."""
    bench = make_bench({"name": "lora", "targets": ["query"], **options}, "twin:bert")
    model = bench.attach(bench.recipe.method).eval()
    with torch.no_grad(), seeded(0, "perturbation"):
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model, model.get_submodule(f"base_model.model.{QUERY}")


def factors(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"rank": 8, "alpha": 16}, 2.0),
        ({"rank": 4, "alpha": 6}, 1.5),
        ({"rank": 4, "alpha": 6, "rslora": True}, 3.0),
        ({"rank": 8, "rank_pattern": {"query": 2}}, 8.0),
        ({"rank": 8, "alpha_pattern": {"query": 4.0}}, 0.5),
    ],
)
def test_the_update_is_scaled_as_the_paper_says(
    make_bench: Callable[..., Any], options: dict[str, Any], scale: float
) -> None:
    _, layer = attached(make_bench, **options)
    a, b = factors(layer)
    x = torch.randn(3, 5, 32)
    with torch.no_grad():
        expected = layer.base_layer(x) + scale * x @ a.T @ b.T

        torch.testing.assert_close(layer(x), expected)
    assert a.shape[0] == {**options, **options.get("rank_pattern", {})}.get(
        "query", options["rank"]
    )


def test_dora_rescales_each_row_to_its_trained_length(make_bench: Callable[..., Any]) -> None:
    _, layer = attached(make_bench, dora=True)
    a, b = factors(layer)
    length = layer.lora_magnitude_vector["default"].weight
    x = torch.randn(7, 32)
    with torch.no_grad():
        moved = layer.base_layer.weight + 2.0 * b @ a
        rows = length[:, None] * moved / moved.norm(dim=1, keepdim=True)
        expected = functional.linear(x, rows, layer.base_layer.bias)

        torch.testing.assert_close(layer(x), expected)
    assert length.requires_grad


@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
def test_other_starts_are_the_identity_too(make_bench: Callable[..., Any], init: str) -> None:
    bench = make_bench({"name": "lora", "init": init}, "twin:bert")
    plain = make_bench("lora", "twin:bert")
    model, other = (b.attach(b.recipe.method).eval() for b in (bench, plain))
    batch = bench.collate(bench.encode(bench.data.train)[:4])
    del batch["labels"]
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, other(**batch).logits)
    name = f"base_model.model.{QUERY}.lora_A.default.weight"

    assert not torch.equal(model.get_parameter(name), other.get_parameter(name))


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("rslora", [False, True])
def test_what_moves_the_weights_is_kept_as_a_plain_lora_on_the_untouched_ones(
    make_bench: Callable[..., Any], init: str, rslora: bool
) -> None:
    method = {"name": "lora", "init": init, "rank": 4, "alpha": 4.0, "rslora": rslora}
    bench = make_bench(method, "twin:bert", steps=6, learning_rate=0.01)
    before = {
        n: p.detach().clone()
        for n, p in bench.backbone.model.named_parameters()
        if "classifier" not in n
    }
    trained: dict[str, Any] = {}
    train = bench.train

    def kept(model: Any) -> None:
        batch = bench.collate(bench.encode(bench.data.test)[:8])
        del batch["labels"]
        start = model.eval()(**batch).logits.detach()
        train(model)
        with torch.no_grad():
            trained.update(start=start, end=model.eval()(**batch).logits, batch=batch)

    bench.train = kept
    predictor = bench.recipe.method.fit(bench)
    predictor.save(bench.folder)
    with torch.no_grad():
        plain = predictor.model(**trained["batch"]).logits
        bare = predictor.model.get_base_model()
    again = make_bench(method, "twin:bert", seed=3)
    reloaded = again.recipe.method.reload(again, bench.folder)

    torch.testing.assert_close(plain, trained["end"], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain, trained["start"], atol=1e-2)
    own = {n.replace(".base_layer", ""): p for n, p in bare.named_parameters()}
    assert all(torch.equal(own[name], tensor) for name, tensor in before.items())
    np.testing.assert_array_equal(
        reloaded.outputs(bench.data.test), predictor.outputs(bench.data.test)
    )
    ranks = {p.shape[0] for n, p in predictor.model.named_parameters() if "lora_A" in n}
    assert ranks == {8}
    counted = sum(4 * (i + o) for i, o in [*[(32, 32)] * 4, (32, 64), (64, 32)]) * 2
    assert predictor.parameters.method == counted  # what was trained, not what is kept


def test_principal_parts_are_where_it_starts(make_bench: Callable[..., Any]) -> None:
    """PiSSA: B A is the best approximation of W of its rank, and W is what is left."""
    bench = make_bench({"name": "lora", "init": "pissa", "rank": 4, "alpha": 4.0}, "twin:bert")
    weight = bench.backbone.model.get_submodule(QUERY).weight.detach().clone()
    model = bench.attach(bench.recipe.method)
    layer = model.get_submodule(f"base_model.model.{QUERY}")
    a, b = factors(layer)
    u, s, v = torch.linalg.svd(weight)

    torch.testing.assert_close(b @ a, (u[:, :4] * s[:4]) @ v[:4], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.base_layer.weight + b @ a, weight, atol=1e-5, rtol=1e-4)


def test_lora_plus_gives_b_its_own_learning_rate(
    make_bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftkit.train import _Trainer

    seen: dict[float, set[str]] = {}
    create = _Trainer.create_optimizer

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        optimizer = create(self, *args, **kwargs)
        names = {id(p): n for n, p in self.model.named_parameters()}
        for group in optimizer.param_groups:
            found = {names[id(p)] for p in group["params"]}
            seen.setdefault(round(group["lr"], 9), set()).update(found)
        return optimizer

    monkeypatch.setattr(_Trainer, "create_optimizer", watched)
    bench = make_bench(
        {"name": "lora", "learning_rate_ratio": 16.0},
        "twin:bert",
        learning_rate=1e-3,
        head_learning_rate="same",
    )
    predictor = bench.recipe.method.fit(bench)
    trained = {n for n, p in predictor.model.named_parameters() if p.requires_grad}

    assert set(seen) == {1e-3, 16e-3}
    assert seen[16e-3] == {n for n in trained if ".lora_B." in n}
    assert seen[1e-3] == trained - seen[16e-3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"init": "orthogonal", "rank": 3}, "even"),
        ({"init": "pissa", "dora": True}, "without DoRA"),
        ({"init": "olora", "rank_pattern": {"query": 2}}, "one rank"),
        ({"learning_rate_ratio": 0.0}, "learning_rate_ratio"),
        ({"init": "pisa"}, "pissa"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    make_bench: Callable[..., Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        make_bench({"name": "lora", **options}, "twin:bert")
