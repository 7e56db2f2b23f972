"""A restored model as a Python program uses it: predictions for rows, continuations of texts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, overload

from mlxlab.config.issues import ConfigIssue, format_issues
from mlxlab.config.schema.validate import Checker
from mlxlab.data.batch import Task
from mlxlab.errors import ConfigError
from mlxlab.inference.cells import is_frame
from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.predict import predict_rows
from mlxlab.inference.restore import RestoredModel
from mlxlab.inference.sampling import SamplingParams
from mlxlab.inference.text_generator import restored_generator
from mlxlab.nearest import suggestion

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, object]


class LoadedModel:
    """The model of a run, or of an ensemble of runs."""

    def __init__(self, restored: RestoredModel) -> None:
        self._restored = restored

    @property
    def task(self) -> Task:
        """What the model predicts: its kind and the names of the labels."""
        return self._restored.encoder.task

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
        answers = predict_rows(self._restored, rows, batch_size)
        if is_frame(rows):
            import pandas as pd

            return pd.DataFrame(answers, index=rows.index)
        return [
            dict(zip(answers, cells, strict=True)) for cells in zip(*answers.values(), strict=True)
        ]

    @overload
    def generate(self, prompts: str, **options: Any) -> str: ...

    @overload
    def generate(self, prompts: Sequence[str], **options: Any) -> list[str]: ...

    def generate(self, prompts: str | Sequence[str], **options: Any) -> str | list[str]:
        """The continuation of a prompt, or of each of several.

        Args:
            options: those of `mlxlab generate`: max_tokens, temperature, top_k, top_p, stop, seed, ...

        Raises:
            ConfigError: an option is unknown or invalid, or the model does not generate text.
        """
        request, sampling = _generation_options(options)
        generator = restored_generator(self._restored)
        texts = generator.texts(
            [prompts] if isinstance(prompts, str) else list(prompts), sampling, request
        )
        return texts[0] if isinstance(prompts, str) else texts


def _generation_options(options: dict[str, Any]) -> tuple[GenerationConfig, SamplingParams]:
    known = {field.name for kind in (GenerationConfig, SamplingParams) for field in fields(kind)}
    for name in options.keys() - known:
        raise ConfigError(f"{name}: unknown option{suggestion(name, known)}")
    values: list[dict[str, Any]] = []
    issues: list[ConfigIssue] = []
    for kind in (GenerationConfig, SamplingParams):
        names = [field.name for field in fields(kind)]
        values.append({name: options[name] for name in names if name in options})
        target = f"{kind.__module__}.{kind.__name__}"
        issues += Checker(values[-1]).check_node(values[-1], target)
    if issues:
        raise ConfigError(format_issues(issues))
    return GenerationConfig(**values[0]), SamplingParams(**values[1])
