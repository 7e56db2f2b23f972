"""The code of a logged model. MLflow runs this file on its own; nothing in mlxlab imports it.

Takes a table with Kaggle's columns (Survived may be absent), gives `label` and a probability per class.
"""

import tempfile
from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Served(PythonModel):
    def load_context(self, context: Any) -> None:
        from mlxlab import backend
        from mlxlab.inference.restore import restore

        backend.prepare()
        self.restored = restore(Path(context.artifacts["run"]), Path(context.artifacts["checkpoint"]))

    # No hint for model_input: MLflow would take it for a schema, and warn that it is none.
    def predict(self, context: Any, model_input, params: dict[str, Any] | None = None) -> Any:  # type: ignore[no-untyped-def]
        import pandas as pd

        from mlxlab.data.titanic_csv import read_passengers
        from mlxlab.inference.predict import predict

        with tempfile.TemporaryDirectory() as folder:  # one reader with one set of checks, also for tables
            path = Path(folder) / "rows.csv"
            pd.DataFrame(model_input).to_csv(path, index=False)
            rows = read_passengers(path, labelled=False)
        probabilities = predict(self.restored, rows)
        labels = self.restored.encoder.task.labels
        table = {f"probability_{label}": probabilities[:, i] for i, label in enumerate(labels)}
        return pd.DataFrame({"label": [labels[i] for i in probabilities.argmax(axis=1)], **table})


set_model(Served())
