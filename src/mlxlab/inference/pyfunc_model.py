"""The code of a logged model. MLflow runs this file on its own; nothing in mlxlab imports it.

A classifier takes a table with Kaggle's columns (Survived may be absent) and gives `label` and a probability per class.
A language model takes a column `text`: a causal one gives `continuation` (its parameters are those of
`generate`: max_tokens, temperature, ...), a masked one gives `filled`, the text with its `<mask>`s replaced.
"""

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class PyfuncModel(PythonModel):
    def load_context(self, context: Any) -> None:
        from mlxlab import backend
        from mlxlab.inference.restore import restore_model

        backend.prepare()
        self.restored = restore_model(Path(context.artifacts["run"]), Path(context.artifacts["checkpoint"]))

    # No hint for model_input: MLflow would take it for a schema, and warn that it is none.
    def predict(self, context: Any, model_input, params: dict[str, Any] | None = None) -> Any:  # type: ignore[no-untyped-def]
        import pandas as pd

        table = pd.DataFrame(model_input)
        task = self.restored.encoder.task
        if task.kind == "classification":
            return self._classes(table)
        texts = [str(text) for text in table["text" if "text" in table else table.columns[0]]]
        if task.masked:
            from mlxlab.inference.fill_mask import fill_mask

            return pd.DataFrame({"filled": [fill_mask(self.restored, text) for text in texts]})
        return pd.DataFrame({"continuation": self._continuations(texts, dict(params or {}))})

    def _classes(self, table: Any) -> Any:
        import pandas as pd

        from mlxlab.data.titanic.csv_schema import read_passengers
        from mlxlab.inference.predict import predict

        with tempfile.TemporaryDirectory() as folder:  # one reader with one set of checks, also for tables
            path = Path(folder) / "rows.csv"
            table.to_csv(path, index=False)
            rows = read_passengers(path, labelled=False)
        probabilities = predict(self.restored, rows)
        labels = self.restored.encoder.task.labels
        columns = {f"probability_{label}": probabilities[:, i] for i, label in enumerate(labels)}
        return pd.DataFrame({"label": [labels[i] for i in probabilities.argmax(axis=1)], **columns})

    def _continuations(self, texts: list[str], params: dict[str, Any]) -> list[str]:
        from mlxlab.inference.generate import GenerationConfig
        from mlxlab.inference.sampling import SamplingParams
        from mlxlab.inference.text_generator import restored_generator

        params["stop"] = [str(text) for text in params.get("stop", [])]
        sampling = SamplingParams(
            **{one.name: params[one.name] for one in fields(SamplingParams) if one.name in params}
        )
        request = GenerationConfig(
            **{one.name: params[one.name] for one in fields(GenerationConfig) if one.name in params}
        )
        return restored_generator(self.restored).texts(texts, sampling, request)


set_model(PyfuncModel())
