"""Loads a logged model: the module that MLflow imports for it, by `mlflow.pyfunc.load_model`.

A model of labelled rows takes a table with the columns it was trained on, and returns the columns of `Predictions`.
A language model takes a column `text`: a causal one returns `continuation` (its parameters are those of
`generate`: max_tokens, temperature, ...), a masked one `filled`, the text with its `<mask>`s replaced.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class ServedModel:
    """A run's model as MLflow calls it: a table in, a table out."""

    def __init__(self, folder: Path) -> None:
        from mlxlab import backend
        from mlxlab.backend.ops.native.activation import activate_for_inference
        from mlxlab.inference.loaded_model import LoadedModel
        from mlxlab.inference.restore import restore_model

        backend.prepare()
        activate_for_inference()
        [weights] = folder.glob("*/model.safetensors")
        self.model = LoadedModel(restore_model(folder / "inference", str(weights.parent)))

    # model_input is not annotated: MLflow would read the annotation as a schema, and warn.
    def predict(  # type: ignore[no-untyped-def]
        self, model_input, params: dict[str, Any] | None = None
    ) -> "pd.DataFrame":
        import pandas as pd

        from mlxlab.inference.predict import fill_mask

        table = pd.DataFrame(model_input)
        task = self.model.task
        if task.kind != "language_modelling":
            return self.model.predict(table)
        texts = [str(text) for text in table["text" if "text" in table else table.columns[0]]]
        if task.masked:
            filled = [fill_mask(self.model.restored, text) for text in texts]
            return pd.DataFrame({"filled": filled})
        options = dict(params or {})
        if "stop" in options:
            options["stop"] = list(map(str, options["stop"]))
        return pd.DataFrame({"continuation": self.model.generate(texts, **options)})


def _load_pyfunc(path: str) -> ServedModel:
    return ServedModel(Path(path))
