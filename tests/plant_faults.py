"""Plants faults, one at a time, in a copy of peftkit, and sees whether a test notices.

    python tests/plant_faults.py [NAME...]

A contract test is worth something only if it fails where the contract is broken. Each fault below
is one replacement of text; the tests named with it run on the copy until the first failure. Ends
with 1 if a fault was missed, or if its text is no longer found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTRACTS = "tests/contracts/test_methods.py"
COUNTS = "tests/contracts/test_counts.py"
INPUTS = "tests/contracts/test_inputs.py"
OPTIONS = "tests/contracts/test_training_options.py"
PADDING = "tests/contracts/test_padding.py"
TASKS = "tests/contracts/test_tasks.py"
LABELS = "tests/test_other_labels.py"
MEMORY = "tests/test_memory.py"
DECISIONS = "tests/test_decisions.py"
VERDICT = "tests/test_verdict.py"
PACKED = "tests/contracts/test_quantized_training.py"
COMBINE = "tests/test_combine.py"


@dataclass(frozen=True)
class Fault:
    """One replacement of text in one file, and the tests that must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str = CONTRACTS
    only: str = "bert or gpt2"


FAULTS = (
    Fault(
        "forgotten freeze", "peftkit/workbench.py",
        "model = found[0] = method.attach(backbone)",
        "model = found[0] = method.attach(backbone).requires_grad_(True)",
    ),
    Fault(
        "bottleneck leaves the LayerNorms trainable", "peftkit/methods/bottleneck.py",
        "        return wrap(backbone, config)",
        "        model = wrap(backbone, config)\n"
        "        [p.requires_grad_(True) for n, p in model.named_parameters() if 'Norm' in n]\n"
        "        return model",
        only="bottleneck",
    ),
    Fault(
        "LoRA does not start as the identity", "peftkit/methods/lora.py",
        'True if self.init == "default" else self.init', "False",
        only="lora",
    ),
    Fault(
        "LoRA with A and B both zero", "peftkit/methods/lora.py",
        "        return wrap(backbone, self._config(backbone))",
        "        model = wrap(backbone, self._config(backbone))\n"
        "        [p.data.zero_() for n, p in model.named_parameters() if 'lora_A' in n]\n"
        "        return model",
        only="lora",
    ),
    Fault(
        "head from the surroundings' random state", "peftkit/backbones/_head.py",
        'with seeded(seed, "head"):', "if True:",
    ),
    Fault(
        "adapter from the surroundings' random state", "peftkit/workbench.py",
        'with seeded(self.recipe.seed, "adapter"), self._weights', "with self._weights",
    ),
    Fault(
        "head neither trained nor saved with an adapter", "peftkit/methods/_peft.py",
        'config.modules_to_save = [f"{place}{name}" for name in backbone.layers.head]',
        "config.modules_to_save = None",
    ),
    Fault(
        "last token found without the mask", "peftkit/backbones/_pooling.py",
        "last = (positions * (mask != 0)).argmax(dim=1)",
        "last = (positions * (mask > -1)).argmax(dim=1)",
        tests=PADDING, only="gpt2",
    ),
    Fault(
        "mean over the padding too", "peftkit/backbones/_pooling.py",
        "weight = mask.to(hidden.dtype)[..., None]",
        "weight = torch.ones_like(mask).to(hidden.dtype)[..., None]",
        tests="tests/test_backbones.py", only="",
    ),
    Fault(
        "virtual tokens do not shorten the text", "peftkit/workbench.py",
        "return int(room) - self.virtual_tokens", "return int(room)",
    ),
    Fault(
        "scratch keeps the pretrained weights", "peftkit/methods/scratch.py",
        "from_pretrained: ClassVar[bool] = False", "from_pretrained: ClassVar[bool] = True",
        only="scratch",
    ),
    Fault(
        "full freezes the embeddings", "peftkit/methods/full.py",
        "return backbone.model.requires_grad_(True)",
        "backbone.model.requires_grad_(True).get_input_embeddings().requires_grad_(False)\n"
        "        return backbone.model",
    ),
    Fault(
        "BitFit forgets a bias in merging", "peftkit/bitfit/layer.py",
        "            bias.data = total\n", "            pass\n", only="bitfit",
    ),
    Fault(
        "order of batches drawn from the global state", "peftkit/order.py",
        'np.random.default_rng(derive(seed, "order"))',
        "np.random.default_rng(np.random.randint(2**32))",
    ),
    Fault(
        "every epoch in the same order", "peftkit/order.py",
        "[random.permutation(len(lengths)) for _ in range(epochs)]",
        "[random.permutation(len(lengths))] * epochs",
        tests="tests/test_train.py", only="",
    ),
    Fault(
        "dropout does not follow the seed", "peftkit/train.py",
        'seed=derive(seed, "dropout") % 2**32', "seed=7",
        tests="tests/test_train.py", only="",
    ),
    Fault(
        "evaluation draws from training's random numbers", "peftkit/watch.py",
        "with torch.random.fork_rng():", "if torch.rand(1) < 2:",
        tests="tests/test_train.py", only="",
    ),
    Fault(
        "dropout left on in evaluation", "peftkit/evaluate.py",
        "    model.eval()\n", "    model.train()\n",
        tests="tests/test_evaluate.py", only="",
    ),
    Fault(
        "accumulated gradients not averaged", "peftkit/train.py",
        "share = self.num_items(labels) / num_items_in_batch", "share = 1.0",
        tests="tests/test_train.py", only="",
    ),
    Fault(
        "gradients never clipped", "peftkit/train.py",
        "max_grad_norm=training.max_grad_norm", "max_grad_norm=0.0",
        tests="tests/test_train.py", only="",
    ),
    Fault(
        "the last state returned instead of the best", "peftkit/train.py",
        "    watch.return_to_best(model)\n", "",
        tests="tests/test_train.py", only="",
    ),
    Fault(
        "the test rows scored in the order of their lengths", "peftkit/evaluate.py",
        "return [found[i] for i in range(len(examples))]", "return list(found.values())",
        tests="tests/test_evaluate.py", only="",
    ),
    Fault(
        "the head counted as the method's", "peftkit/workbench.py",
        "Parameters(method=total - head, head=head)", "Parameters(method=total, head=0)",
        tests=COUNTS,
    ),
    Fault(
        "left padding left where it is", "peftkit/backbones/_load.py",
        "    move_padding_behind(model, restore=pooling is None)\n", "",
        tests=PADDING, only="padding_changes and prompt_tuning",
    ),
    Fault(
        "left padding left where it is in a reloaded model", "peftkit/reloading.py",
        "    move_padding_behind(model, restore=backbone.pooling is None)\n", "",
        tests=PADDING, only="full",
    ),
    Fault(
        "answers of moved tokens not moved back", "peftkit/backbones/_padding.py",
        "OUTPUTS if restore else ()", "()",
        tests=PADDING, only="bert-token",
    ),
    Fault(
        "the mask not moved with the text", "peftkit/backbones/_padding.py",
        '_move_mask(given["attention_mask"], order)', 'given["attention_mask"]',
        tests=PADDING, only="padding_changes",
    ),
    Fault(
        "types of tokens not moved with the text", "peftkit/backbones/_padding.py",
        '"inputs_embeds", "token_type_ids",', '"inputs_embeds",',
        tests=PADDING, only="padding_changes",
    ),
    Fault(
        "positions not moved with the text", "peftkit/backbones/_padding.py",
        '"token_type_ids", "position_ids")', '"token_type_ids")',
        tests=PADDING, only="padding_changes",
    ),
    Fault(
        "PEFT's class for questions, which drops the types of tokens",
        "peftkit/backbones/_loaded.py",
        '"AutoModelForQuestionAnswering": "SEQ_CLS"',
        '"AutoModelForQuestionAnswering": "QUESTION_ANS"',
        tests=INPUTS, only="question_answering",
    ),
    Fault(
        "full reads rounded weights", "peftkit/methods/full.py",
        "parameter.data = parameter.data.to(dtype)",
        "parameter.data = parameter.data.bfloat16().to(dtype)",
        tests=INPUTS, only="lora",
    ),
    Fault(
        "adapters see no mask", "peftkit/methods/_peft.py",
        "        model = get_peft_model(backbone.model, config)\n",
        "        model = get_peft_model(backbone.model, config)\n"
        "        model.get_base_model().register_forward_pre_hook(\n"
        "            lambda _, args, given: (args, {**given, 'attention_mask': None}),\n"
        "            with_kwargs=True)\n",
        tests=INPUTS, only="lora or bottleneck",
    ),
    Fault(
        "the network of P-tuning under autocast", "peftkit/methods/_peft.py",
        "        _encode_in_float32(model)\n", "        pass\n",
        tests=OPTIONS, only="p_tuning",
    ),
    Fault(
        "trained in float32, whatever is asked", "peftkit/train.py",
        'bf16=resolve_precision(training.precision) == "bfloat16"', "bf16=False",
        tests=OPTIONS, only="in_bfloat16 and full",
    ),
    Fault(
        "accumulated gradients of a method not averaged", "peftkit/train.py",
        "share = self.num_items(labels) / num_items_in_batch", "share = 1.0",
        tests=OPTIONS, only="two_passes",
    ),
    Fault(
        "gradients of a method never clipped", "peftkit/train.py",
        "max_grad_norm=training.max_grad_norm", "max_grad_norm=0.0",
        tests=OPTIONS, only="in_bfloat16",
    ),
    Fault(
        "one adapter a layer where Houlsby has two", "peftkit/bottleneck/config.py",
        r"layer\.\d+\.(attention\.)?output\.dense", r"layer\.\d+\.output\.dense",
        tests="tests/test_bottleneck_counts.py", only="",
    ),
    Fault(
        "a bottleneck rounded up", "peftkit/bottleneck/config.py",
        "max(1, width // self.reduction_factor)", "width // self.reduction_factor + 1",
        tests="tests/test_bottleneck_counts.py", only="",
    ),
    Fault(
        "padding is attended to", "peftkit/evaluate.py",
        '"labels": IGNORED}', '"labels": IGNORED, "attention_mask": 1}',
        tests=TASKS, only="padding",
    ),
    Fault(
        "sounds are heard to the end of the longest", "peftkit/tasks/audio_classification.py",
        "padding=True", "padding=True, return_attention_mask=False",
        tests=TASKS, only="padding and audio",
    ),
    Fault(
        "masks go by the place in a file", "peftkit/tasks/language_modeling.py",
        'f"{start} {text}{again}"', 'f"{start} {row}{again}"',
        tests=TASKS, only="language_modeling",
    ),
    Fault(
        "questions without an answer are no chance", "peftkit/tasks/question_answering.py",
        "chance = sum(unanswered) / len(unanswered)", "chance = 0.0",
        tests=TASKS, only="question_answering",
    ),
    Fault(
        "chance of the commonest label alone", "peftkit/tasks/multi_label_classification.py",
        "for k in range(1, len(counts) + 1))", "for k in range(1, 2))",
        tests=TASKS, only="multi_label",
    ),
    Fault(
        "labels that are nowhere count as missed", "peftkit/tasks/multi_label_classification.py",
        "np.flatnonzero((there | found).any(axis=0))", "np.arange(there.shape[1])",
        tests=TASKS, only="multi_label",
    ),
    Fault(
        "ranks are left out", "peftkit/tasks/text_regression.py",
        "_correlation(rankdata(label), rankdata(predicted))", "_correlation(label, predicted)",
        tests=TASKS, only="text_regression",
    ),
    Fault(
        "what each item adds is in another order", "peftkit/tasks/_spans.py",
        "    return scores\n", "    return scores[::-1].copy()\n",
        tests=TASKS, only="token_classification",
    ),
    Fault(
        "answers in standard deviations", "peftkit/tasks/text_regression.py",
        'return examples[0]["_scale"].own(values) if examples else values', "return values",
        tests=LABELS, only="unit",
    ),
    Fault(
        "several labels are one loss", "peftkit/tasks/multi_label_classification.py",
        "binary_cross_entropy_with_logits(logits.float(), labels.float())",
        "binary_cross_entropy_with_logits(logits.float(), 1 - labels.float())",
        tests=LABELS, only="loss",
    ),
    Fault(
        "a pooled view", "peftkit/backbones/_pooling.py",
        ".repeat(1, hidden.shape[1], 1)", ".expand(-1, hidden.shape[1], -1)",
        tests=LABELS, only="answers_again and llama and text_regression",
    ),
    Fault(
        "heads are packed", "peftkit/backbones/_quantized.py",
        "kept = [name for name, module in", "kept = [name for name, module in () and",
        tests=PACKED, only="heads and audio",
    ),
    Fault(
        "norms beside packed weights stay in bfloat16", "peftkit/backbones/_load.py",
        "keep_in_float32(model, layers.norms)", "keep_in_float32(model, ())",
        tests=PACKED, only="heads and image",
    ),
    Fault(
        "nothing casts what norms hand on", "peftkit/backbones/_load.py",
        "        cast_inputs(model)\n", "",
        tests=PACKED, only="bfloat16 and llama-lora",
    ),
    Fault(
        "blocks are never computed again", "peftkit/train.py",
        "{checkpointing.NAME: training.gradient_checkpointing}",
        "{checkpointing.NAME: False}",
        tests=PACKED, only="recomputed and llama and lora",
    ),
    Fault(
        "adapters made where the weights are not", "peftkit/workbench.py",
        "            bring_back(self.backbone.model, self.backbone.waiting)\n",
        "            pass\n",
        tests="tests/test_offload.py", only="waits and lora",
    ),
    Fault(
        "activations counted as temporary", "peftkit/memory/counting.py",
        'return "activations" if forward else "temporary"', 'return "temporary"',
        tests=MEMORY, only="",
    ),
    Fault(
        "what int8 layers put out taken for what they read", "peftkit/backbones/_outline.py",
        "output = _Pass.apply(x, self)  # in", "output = _Pass.apply(x, self).to(x.dtype)  # in",
        tests=MEMORY, only="prediction_is_what and int8",
    ),
    Fault(
        "the middle block is not repeated", "peftkit/memory/prediction.py",
        "more = self.num_blocks - self.traced_blocks", "more = 0",
        tests=MEMORY, only="middle_block",
    ),
    Fault(
        "the optimizer's state left out of a prediction", "peftkit/memory/tracing.py",
        'live.timeline.enter(size, "optimizer")', "pass",
        tests=MEMORY, only="",
    ),
    Fault(
        "no correction for several methods", "peftkit/statistics/hypotheses.py",
        "np.minimum(1.0, np.maximum.accumulate(scaled))", "p[order]",
        tests=DECISIONS, only="",
    ),
    Fault(
        "not to differ taken for being as good", "peftkit/statistics/hypotheses.py",
        "return float(scipy.stats.t.cdf(_distance(difference, margin), difference.df))",
        "return float(1 - 2 * scipy.stats.t.sf(abs(_distance(difference, 0.0)), difference.df))",
        tests=DECISIONS, only="",
    ),
    Fault(
        "crossover without the error of the items", "peftkit/statistics/crossover.py",
        "items = num_seeds * _squares(weights, per_item)",
        "items = 0.0 * _squares(weights, per_item)",
        tests=DECISIONS, only="",
    ),
    Fault(
        "one open method is enough for full to be warranted", "peftkit/verdict/deciding.py",
        "all(contrast.full_is_better for contrast in contrasts)",
        "any(contrast.full_is_better for contrast in contrasts)",
        tests=VERDICT, only="",
    ),
    Fault(
        "two seeds decide", "peftkit/verdict/results.py",
        "FEWEST_SEEDS = 3", "FEWEST_SEEDS = 2",
        tests=VERDICT, only="",
    ),
    Fault(
        "a method without runs taken for beaten", "peftkit/verdict/deciding.py",
        "complete = results.whole and not missing", "complete = results.whole",
        tests="tests/test_reporting.py", only="all_failed",
    ),
    Fault(
        "the last look never comes", "peftkit/verdict/deciding.py",
        "if each.seeds <= most]", "if each.seeds < most]",
        tests=VERDICT, only="planned_for_it",
    ),
    Fault(
        "as good where it is not shown not to be worse", "peftkit/verdict/deciding.py",
        "return self.is_not_worse and self.p_equivalent <= self.alpha",
        "return self.p_equivalent <= self.alpha",
        tests=VERDICT, only="as_good",
    ),
    Fault(
        "records of other settings judged with a study's", "peftkit/verdict/from_table.py",
        "records = [record for record in records if record.key in asked]", "pass",
        tests="tests/test_study.py", only="asks_for_now",
    ),
    Fault(
        "a second study writes into the folder of one that runs", "peftkit/study/pair.py",
        'with folder_lock(self.out, ".study.lock"):', "if True:",
        tests="tests/test_study.py", only="two_studies",
    ),
    Fault(
        "the best of the methods named, not the cheapest", "peftkit/verdict/deciding.py",
        "    for contrast in contrasts:\n        if contrast.is_not_worse:",
        "    for contrast in reversed(contrasts):\n        if contrast.is_not_worse:",
        tests=VERDICT, only="",
    ),
    Fault(
        "every look at the level of one", "peftkit/verdict/deciding.py",
        "alpha=look.alpha if look else ALPHA", "alpha=ALPHA",
        tests=VERDICT, only="each_look",
    ),
    Fault(
        "a decided size goes on", "peftkit/study/pair.py",
        "decision.is_decided or not compared", "not compared",
        tests="tests/test_study.py", only="adaptive",
    ),
    Fault(
        "the worst learning rate chosen", "peftkit/study/rates.py",
        "place: max(rates,", "place: min(rates,",
        tests="tests/test_study.py", only="trials",
    ),
    Fault(
        "rsLoRA scaled as LoRA in a sum", "peftkit/combining/reading.py",
        "alpha / math.sqrt(rank) if config.get(\"use_rslora\") else alpha / rank", "alpha / rank",
        tests=COMBINE, only="weight_one and rslora",
    ),
    Fault(
        "patterns of alphas forgotten in a sum", "peftkit/combining/reading.py",
        'option("alpha_pattern", "lora_alpha")', 'config["lora_alpha"]',
        tests=COMBINE, only="weight_one and patterns",
    ),
    Fault(
        "DoRA's lengths forgotten in a sum", "peftkit/combining/updates.py",
        "return product + self.stretch[:, None] * weight", "return product",
        tests=COMBINE, only="full_rank",
    ),
    Fault(
        "Conv1D taken for a linear layer in a sum", "peftkit/combining/updates.py",
        "return weight.T if isinstance(module, Conv1D) else weight", "return weight",
        tests=COMBINE, only="weight_one and transposed",
    ),
    Fault(
        "the bias beside B left unscaled in a sum", "peftkit/combining/updates.py",
        "factors.scale * factors.bias.double()", "factors.bias.double()",
        tests=COMBINE, only="weight_one and biases",
    ),
    Fault(
        "TIES elects signs by counting them", "peftkit/combining/rules.py",
        "elected = stacked.sum(dim=0).sign()", "elected = stacked.sign().sum(dim=0).sign()",
        tests="tests/test_combining_rules.py", only="by_hand",
    ),
    Fault(
        "patterns of ranks in a result match other layers", "peftkit/combining/writing.py",
        'f"^{re.escape(name)}": each', 'name.rpartition(".")[2]: each',
        tests=COMBINE, only="energy_chooses",
    ),
    Fault(
        "output layers at the rate of their method", "peftkit/workbench.py",
        "                return head_rate / rate\n            return self",
        "                return 1.0\n            return self",
        tests=OPTIONS, only="one_rate",
    ),
    Fault(
        "the highest loss chosen", "peftkit/study/rates.py",
        "return value if task.higher_is_better else -value", "return value",
        tests="tests/test_study.py", only="lowest_is_chosen",
    ),
    Fault(
        "evaluation counted as training", "peftkit/recording.py",
        'costs["train_seconds"] -= bench', 'costs["train_seconds"] += bench',
        tests="tests/test_cost.py", only="is_no_training",
    ),
    Fault(
        "inference slowed down the other way round", "peftkit/cost.py",
        "statistics.median(a / b", "statistics.median(b / a",
        tests="tests/test_cost.py", only="adds_to_inference",
    ),
    Fault(
        "what would decide points the other way", "peftkit/verdict/deciding.py",
        "distance = margin - contrast.difference.mean",
        "distance = contrast.difference.mean - margin",
        tests=VERDICT, only="worked_out_from",
    ),
    Fault(
        "the ladder as a table shows it", "peftkit/verdict/from_table.py",
        "return tuple(sorted(rows, key=cost))", "return tuple(rows)",
        tests="tests/test_reporting.py", only="cheapest_is_told",
    ),
    Fault(
        "failed methods forgotten", "peftkit/verdict/from_table.py",
        'possible = any(r.status != "unsupported" for', 'possible = any(r.status == "done" for',
        tests="tests/test_reporting.py", only="all_failed",
    ),
    Fault(
        "warranted before all has run", "peftkit/verdict/deciding.py",
        "complete = results.whole and not missing", "complete = not missing",
        tests="tests/test_reporting.py", only="warranted",
    ),
    Fault(
        "intervals of the page halved", "peftkit/reporting/page/charts.py",
        "half = quality.half_width() if quality", "half = quality.half_width() / 2 if quality",
        tests="tests/test_page.py", only="numbers_of_the_records",
    ),
    Fault(
        "4 bits are always nf4", "peftkit/backbones/_quantized.py",
        '"bnb_4bit_quant_type": backbone.quantization', '"bnb_4bit_quant_type": "nf4"',
        tests="tests/contracts/test_quantized.py", only="moves_what or arrive_at",
    ),
    Fault(
        "prefixes of three blocks for all", "peftkit/methods/_peft.py",
        "return int(backbone.layers.stands_for or own)", "return int(own)",
        tests=MEMORY, only="prefixes",
    ),
    Fault(
        "the decoder of an unknown encoder-decoder left out", "peftkit/backbones/_family.py",
        "return sides if all(sides) else [stacks]", "return [stacks]",
        tests="tests/test_backbones.py", only="both_sides",
    ),
)  # fmt: skip


def caught_by(fault: Fault, copy: Path) -> str | None:
    """Name the first test that fails once the fault is in `copy`, None if all pass."""
    path = copy / fault.file
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace(fault.old, fault.new), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-rfE"]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", fault.tests, "-k", fault.only],
            cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
    finally:
        path.write_text(right, encoding="utf-8")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode not in (0, 1):
        sys.exit(f"{fault.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
    return failed[0].split(" - ")[0].partition(" ")[2] if failed else None


def main() -> None:
    """Try every fault, or those named."""
    chosen = [f for f in FAULTS if not sys.argv[1:] or f.name in sys.argv[1:]]
    for fault in chosen:
        count = (ROOT / fault.file).read_text(encoding="utf-8").count(fault.old)
        if count != 1:
            sys.exit(f"{fault.name}: its text stands {count} times in {fault.file}")
    missed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "results", ".*cache")
        )
        for number, fault in enumerate(chosen, 1):
            test = caught_by(fault, copy)
            missed += test is None
            print(f"{number}/{len(chosen)} {fault.name}: {test or 'MISSED'}", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
