"""A model in ONNX Runtime, called as the model of transformers that it came from.

It answers on the CPU. Where it writes, it reads all of a text again for each token, as its graph
keeps no keys and values: the likeliest token is appended until one that ends the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import InvalidInput, Unsupported
from peftkit.extras import require_packages
from peftkit.predictors import ModelPredictor, Parameters

if TYPE_CHECKING:
    import torch

    from peftkit.workbench import Workbench

FILE = "model.onnx"


class OnnxModel:
    """A graph in memory.

    Args:
        file: `model.onnx`.
        config: Of the model it came from; needed where it writes.
        generation: What that says of generating, likewise.

    Raises:
        InvalidInput: The file is none that ONNX Runtime can read, or ONNX Runtime is missing.
    """

    def __init__(self, file: Path, config: Any = None, generation: Any = None) -> None:
        require_packages(("onnxruntime",), extra="export")
        import onnxruntime
        import torch
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidProtobuf, NoSuchFile

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        try:
            self.session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except (Fail, InvalidProtobuf, NoSuchFile) as error:
            raise InvalidInput(
                f"{file} is no model that ONNX Runtime can read",
                received=str(error).splitlines()[0][:200],
                next_step="copy the whole folder (the weights are in model.onnx.data), or export "
                "it again",
            ) from error
        self.config = config
        self.penalty = float(getattr(generation, "repetition_penalty", None) or 1.0)
        self.names = [value.name for value in self.session.get_inputs()]

    def eval(self) -> OnnxModel:
        """Nothing to switch: a graph does not train."""
        return self

    def __call__(self, **inputs: Any) -> Any:
        """Logits by name, as an output of transformers has them."""
        import torch
        from transformers.utils.generic import ModelOutput

        feed = {name: inputs[name].cpu().numpy() for name in self.names}
        names = [value.name for value in self.session.get_outputs()]
        found = zip(names, self.session.run(names, feed), strict=True)
        return ModelOutput({name: torch.from_numpy(value) for name, value in found})

    def generate(
        self,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        max_new_tokens: int,
        pad_token_id: int,
        eos_token_id: int | Sequence[int] | None = None,
        num_beams: int = 1,
        **others: Any,
    ) -> torch.Tensor:
        """Go on from prompts, as a decoder of transformers does without sampling.

        Args:
            input_ids: Prompts, `(batch, seq)`, padded on either side.
            attention_mask: Where they are no padding.
            max_new_tokens: How many tokens are written, at most.
            pad_token_id: What stands behind an answer that has ended.
            eos_token_id: Tokens that end an answer; None: that of the configuration.
            num_beams: 1.
            **others: What else transformers would be told, which has no meaning here.

        Returns:
            The prompts as they came, and what was written behind them.

        Raises:
            Unsupported: For an encoder-decoder, or a search with beams.
        """
        import torch

        if self.config.is_encoder_decoder or num_beams > 1:
            raise Unsupported(
                "from ONNX, only decoders write, without a search. Next: predict with the run's "
                "own folder, or a merged one."
            )
        ends = self.config.eos_token_id if eos_token_id is None else eos_token_id
        last = set(ends if isinstance(ends, list | tuple) else [ends])
        texts = [
            ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)
        ]
        written: list[list[int]] = [[] for _ in texts]
        for _ in range(max_new_tokens):
            open_ = [i for i, w in enumerate(written) if not w or w[-1] not in last]
            if not open_:
                break
            following = self._next([texts[i] + written[i] for i in open_], pad_token_id)
            for i, token in zip(open_, following, strict=True):
                written[i].append(token)
        longest = max(map(len, written))
        padded = [w + [pad_token_id] * (longest - len(w)) for w in written]
        answers = torch.tensor(padded, device=input_ids.device)
        return torch.cat([input_ids, answers], dim=1)

    def _next(self, texts: list[list[int]], pad: int) -> list[int]:
        """The likeliest token behind each text, those that are in it at a discount.

        Keskar et al. 2019 (arXiv:1909.05858), section 4.1, as transformers has it.
        """
        import torch

        longest = max(map(len, texts))
        ids = torch.tensor([text + [pad] * (longest - len(text)) for text in texts])
        lengths = torch.tensor([len(text) for text in texts])
        mask = (torch.arange(longest)[None] < lengths[:, None]).long()
        logits = self(input_ids=ids, attention_mask=mask).logits
        scores = logits[torch.arange(len(texts)), lengths - 1]
        if self.penalty != 1.0:
            for row, text in zip(scores, texts, strict=True):
                known = torch.tensor(sorted(set(text)))
                values = row[known]
                row[known] = torch.where(values < 0, values * self.penalty, values / self.penalty)
        likeliest: list[int] = scores.argmax(dim=-1).tolist()
        return likeliest


def onnx_predictor(bench: Workbench, *, virtual_tokens: int) -> ModelPredictor:
    """A predictor of the graph in a bench's folder.

    Args:
        bench: Stands alone on a folder that `peftkit export --format onnx` wrote.
        virtual_tokens: How many the graph puts before each text.
    """
    bench.virtual_tokens = virtual_tokens
    bench.reloaded = True
    whole = bench.backbone.model
    if (bench.folder / "generation_config.json").is_file():
        from transformers import GenerationConfig

        whole.generation_config = GenerationConfig.from_pretrained(bench.folder)
    generation = getattr(whole, "generation_config", None)
    model = OnnxModel(bench.folder / FILE, whole.config, generation)
    return ModelPredictor(model=model, bench=bench, parameters=Parameters(method=0, head=0))
