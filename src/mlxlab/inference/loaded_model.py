"""A restored model as a Python program uses it: predictions for rows, continuations of texts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from mlxlab.config.issues import format_issues
from mlxlab.config.schema.validate import Checker
from mlxlab.data.batch import Task
from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.inference.embed import vectors_of
from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.predict import is_frame, predict_rows, row_reading, to_table
from mlxlab.inference.restore import RestoredModel
from mlxlab.inference.text_generator import restored_generator

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, object]


class LoadedModel:
    """The model of a run, or of an ensemble of runs.

    Attributes:
        restored: its parts, for the other modules of this package.
    """

    def __init__(self, restored: RestoredModel) -> None:
        self.restored = restored

    @property
    def task(self) -> Task:
        """What the model predicts: its kind and the names of the labels."""
        return self.restored.encoder.task

    @overload
    def predict(
        self, rows: Iterable[str] | Iterable[Row], batch_size: int = 64
    ) -> list[dict[str, Any]]: ...

    @overload
    def predict(self, rows: "pd.DataFrame", batch_size: int = 64) -> "pd.DataFrame": ...

    def predict(
        self, rows: "pd.DataFrame | Iterable[str] | Iterable[Row]", batch_size: int = 64
    ) -> "pd.DataFrame | list[dict[str, Any]]":
        """A prediction for each row: `label` and `probability_<label>`; `labels`, where several may hold; or `value`.

        Args:
            rows: dicts with the columns of the training data, or texts for a model that reads one column; the
                predictions are dicts too. Of a DataFrame they are one, with its index.
            batch_size: rows that the model reads at once; changes no result beyond rounding.

        Raises:
            NotAllowedError: this is a language model.
            DataError: a column is missing, or a cell is malformed.
        """
        answers = predict_rows(self.restored, rows, batch_size)
        if is_frame(rows):
            import pandas as pd

            return pd.DataFrame(answers, index=rows.index)
        return [
            dict(zip(answers, cells, strict=True)) for cells in zip(*answers.values(), strict=True)
        ]

    def predict_proba(
        self, rows: "pd.DataFrame | Iterable[str] | Iterable[Row]", batch_size: int = 64
    ) -> "pd.DataFrame":
        """The probability of each label (a column) for each row; arguments and errors as in `predict`.

        Raises:
            NotAllowedError: the model predicts numbers.
        """
        import pandas as pd

        if self.task.kind == "regression":
            raise NotAllowedError("expected a classifier; a regression has no probabilities")
        answers = predict_rows(self.restored, rows, batch_size)
        columns = {name: answers[f"probability_{name}"] for name in self.task.labels}
        return pd.DataFrame(columns, index=rows.index if is_frame(rows) else None)

    def embed(self, rows: "pd.DataFrame | Iterable[str] | Iterable[Row]") -> np.ndarray:
        """A vector of each row (N, E) float32, of length 1: what the classifier reads.

        Raises:
            NotAllowedError: the model predicts no label from texts.
            DataError: a column is missing, or a text is empty.
        """
        vectors = vectors_of(self.restored, "this run")
        missing = row_reading(self.restored.config["data"]).missing
        table = to_table(rows, vectors.columns, missing)
        return vectors.embed(table, lambda row: f"row {row + 1}")

    @overload
    def generate(self, prompt: str, **options: Any) -> str: ...

    @overload
    def generate(self, prompt: Sequence[str], **options: Any) -> list[str]: ...

    def generate(self, prompt: str | Sequence[str], **options: Any) -> str | list[str]:
        """The continuation of a prompt, or of each of several.

        Args:
            prompt: one text, or a list of texts.
            options: those of `mlxlab generate`: max_tokens, temperature, top_k, top_p, stop, seed, ...

        Raises:
            ConfigError: an option is unknown or invalid, or the model does not generate text.
        """
        request = read_options(**options)
        generator = restored_generator(self.restored)
        if isinstance(prompt, str):
            return generator.texts([prompt], request)[0]
        return generator.texts(prompt, request)


def read_options(**options: Any) -> GenerationConfig:
    """The options of generation; ConfigError for unknown or invalid ones."""
    target = f"{GenerationConfig.__module__}.{GenerationConfig.__name__}"
    issues = list(Checker(options).check_node(options, target))
    if issues:
        raise ConfigError(format_issues(issues))
    return GenerationConfig(**options)
