"""MLflow signatures of logged models: columns of inputs, outputs and parameters."""

import json
from collections.abc import Mapping
from dataclasses import fields

from mlxlab.data.batch import Task

COLUMNS = {
    "PassengerId": "long",
    "Pclass": "long",
    "Name": "string",
    "Sex": "string",
    "Age": "double",
    "SibSp": "long",
    "Parch": "long",
    "Ticket": "string",
    "Fare": "double",
    "Cabin": "string",
    "Embarked": "string",
}
CAUSAL = {"text": "continuation"}  # input and output column of a causal language model
MASKED = {"text": "filled"}  # of a masked one
KINDS = {int: "long", float: "double", bool: "boolean"}


def model_signature(task: Task) -> dict[str, str]:
    """Classifier: Kaggle's columns to a label and a probability per class; language model: text to text."""
    if task.kind == "classification":
        columns = {"label": "string"} | {f"probability_{label}": "float" for label in task.labels}
        return _signature(COLUMNS, columns)
    names = MASKED if task.masked else CAUSAL
    signature = _signature(dict.fromkeys(names, "string"), dict.fromkeys(names.values(), "string"))
    return signature if task.masked else signature | {"params": json.dumps(_options())}


def _signature(inputs: dict[str, str], outputs: dict[str, str]) -> dict[str, str]:
    return {
        side: json.dumps([{"type": kind, "name": name, "required": True} for name, kind in columns.items()])
        for side, columns in (("inputs", inputs), ("outputs", outputs))
    }


def _options() -> list[Mapping[str, object]]:
    """The options of generation with their defaults; those whose default is not a number are left out."""
    from mlxlab.inference.generate import GenerationConfig
    from mlxlab.inference.sampling import SamplingParams

    options = [
        {"name": field.name, "default": field.default, "shape": None, "type": KINDS[type(field.default)]}
        for field in [*fields(GenerationConfig), *fields(SamplingParams)]
        if type(field.default) in KINDS
    ]
    return [*options, {"name": "stop", "default": [], "shape": [-1], "type": "string"}]
