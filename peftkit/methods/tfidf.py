"""No transformer at all: TF-IDF and logistic regression, the line every result is read against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import Unsupported
from peftkit.methods._method import Method, Rung
from peftkit.predictors import Parameters, Predictor, clear_earlier

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from peftkit.tasks import Progress
    from peftkit.workbench import Workbench

# Words and pairs of words, damped counts: the usual strong setting for short texts (Wang and
# Manning 2012; scikit-learn's user guide).
VECTORIZER: dict[str, Any] = {"ngram_range": (1, 2), "sublinear_tf": True, "min_df": 1}


@dataclass(frozen=True, kw_only=True)
class TfIdf(Method):
    """TF-IDF of words and word pairs with logistic (or ridge) regression, through scikit-learn."""

    rung: ClassVar[Rung] = "reference"
    reference: ClassVar[str] = "no transformer: what the words alone give away"
    needs_backbone: ClassVar[bool] = False
    works_on_quantised: ClassVar[bool] = False
    works_offloaded: ClassVar[bool] = False

    def fit(self, bench: Workbench) -> Predictor:
        from sklearn.feature_extraction.text import TfidfVectorizer

        task, rows = bench.recipe.task, bench.data.train
        if task.inputs != "text":
            raise Unsupported(f"tfidf counts the words of a text, and {task.inputs} data has none")
        if task.reads != "text":
            raise Unsupported("tfidf counts the words of a text; this task asks about parts of it")
        vectorizer = TfidfVectorizer(**VECTORIZER)
        counts = vectorizer.fit_transform(task.texts(rows))
        weight, bias = task.fit_words(counts, rows, len(bench.data.labels))
        return TfIdfPredictor(bench=bench, vectorizer=vectorizer, weight=weight, bias=bias)

    def reload(self, bench: Workbench, folder: Path) -> Predictor:
        import numpy as np
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        with np.load(folder / "tfidf.npz") as file:
            vectorizer = TfidfVectorizer(
                **VECTORIZER, vocabulary={w: i for i, w in enumerate(words)}
            )
            vectorizer.idf_ = file["idf"]
            return TfIdfPredictor(
                bench=bench, vectorizer=vectorizer, weight=file["weight"], bias=file["bias"]
            )


@dataclass(kw_only=True)
class TfIdfPredictor:
    """Linear scores of weighted word counts."""

    bench: Workbench
    vectorizer: Any
    weight: np.ndarray
    bias: np.ndarray

    @property
    def parameters(self) -> Parameters:
        return Parameters(method=self.weight.size + self.bias.size, head=0)

    def outputs(self, rows: Dataset, progress: Progress | None = None) -> Any:
        import numpy as np

        counts = self.vectorizer.transform(self.bench.recipe.task.texts(rows))
        logits: np.ndarray = (counts @ self.weight.T + self.bias).astype(np.float32)
        return self.bench.recipe.task.join(list(logits), [])

    def save(self, folder: Path) -> None:
        import numpy as np

        clear_earlier(folder)
        folder.mkdir(parents=True, exist_ok=True)
        words = sorted(self.vectorizer.vocabulary_, key=self.vectorizer.vocabulary_.get)
        (folder / "vocabulary.json").write_text(json.dumps(words), encoding="utf-8")
        np.savez(folder / "tfidf.npz", idf=self.vectorizer.idf_, weight=self.weight, bias=self.bias)
