"""MLflow model of a run (models from code): MLflow executes this file; nothing in mlxlab imports it.

A classifier takes a table with Kaggle's columns (Survived is optional) and returns `label` and a probability per class.
A language model takes a column `text`: a causal one returns `continuation` (its parameters are those of
`generate`: max_tokens, temperature, ...), a masked one `filled`, the text with its `<mask>`s replaced.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class PyfuncModel(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        from mlxlab import backend
        from mlxlab.inference.restore import restore_model

        backend.prepare()
        self.restored = restore_model(Path(context.artifacts["run"]), context.artifacts["checkpoint"])

    # model_input is not annotated: MLflow would read the annotation as a schema, and warn.
    def predict(self, context: PythonModelContext, model_input, params: dict[str, Any] | None = None) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        from mlxlab.inference.predict import fill_mask

        table, task = pd.DataFrame(model_input), self.restored.encoder.task
        if task.kind == "classification":
            return self._classes(table)
        texts = [str(text) for text in table["text" if "text" in table else table.columns[0]]]
        if task.masked:
            return pd.DataFrame({"filled": [fill_mask(self.restored, text) for text in texts]})
        return pd.DataFrame({"continuation": self._continuations(texts, dict(params or {}))})

    def _classes(self, table: pd.DataFrame) -> pd.DataFrame:
        from mlxlab.data.titanic.passenger import parse_passengers
        from mlxlab.inference.predict import predict

        rows = parse_passengers(table.to_csv(index=False).encode(), "table", labelled=False)  # the checks of a file
        probabilities, labels = predict(self.restored, rows), self.restored.encoder.task.labels
        columns = {f"probability_{label}": probabilities[:, i] for i, label in enumerate(labels)}
        return pd.DataFrame({"label": [labels[i] for i in probabilities.argmax(axis=1)], **columns})

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


set_model(PyfuncModel())
