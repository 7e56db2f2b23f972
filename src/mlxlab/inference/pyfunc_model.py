"""Loads a logged model: the module that MLflow imports for it, by `mlflow.pyfunc.load_model`.

A model of labelled rows takes a table with the columns it was trained on, and returns the columns of `Predictions`.
A language model takes a column `text`: a causal one returns `continuation` (its parameters are those of
`generate`: max_tokens, temperature, ...), a masked one `filled`, the text with its `<mask>`s replaced.
"""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class LoadedModel:
    """A run's model as MLflow calls it: a table in, a table out."""

    def __init__(self, folder: Path) -> None:
        from mlxlab import backend
        from mlxlab.inference.restore import restore_model
        from mlxlab.ops.native.activation import activate_for_inference

        backend.prepare()
        activate_for_inference()
        [weights] = folder.glob("*/model.safetensors")
        self.restored = restore_model(folder / "inference", str(weights.parent))

    # model_input is not annotated: MLflow would read the annotation as a schema, and warn.
    def predict(  # type: ignore[no-untyped-def]
        self, model_input, params: dict[str, Any] | None = None
    ) -> "pd.DataFrame":
        import pandas as pd

        from mlxlab.inference.predict import fill_mask, predict_rows

        table = pd.DataFrame(model_input)
        task = self.restored.encoder.task
        if task.kind != "language_modelling":
            return pd.DataFrame(predict_rows(self.restored, table))
        texts = [str(text) for text in table["text" if "text" in table else table.columns[0]]]
        if task.masked:
            return pd.DataFrame({"filled": [fill_mask(self.restored, text) for text in texts]})
        return pd.DataFrame({"continuation": self._continuations(texts, dict(params or {}))})

    def _continuations(self, texts: list[str], params: dict[str, Any]) -> list[str]:
        from mlxlab.inference.generate import GenerationConfig
        from mlxlab.inference.sampling import SamplingParams
        from mlxlab.inference.text_generator import restored_generator

        params["stop"] = [str(text) for text in params.get("stop", [])]
        sampling = SamplingParams(**_select(params, SamplingParams))
        request = GenerationConfig(**_select(params, GenerationConfig))
        return restored_generator(self.restored).texts(texts, sampling, request)


def _select(params: dict[str, Any], options: type) -> dict[str, Any]:
    return {field.name: params[field.name] for field in fields(options) if field.name in params}


def _load_pyfunc(path: str) -> LoadedModel:
    return LoadedModel(Path(path))
