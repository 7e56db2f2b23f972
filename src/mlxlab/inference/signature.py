"""MLflow signatures of logged models: columns of inputs, outputs and parameters."""

import json
from dataclasses import fields

from mlxlab.data.batch import Task
from mlxlab.data.titanic.passenger import COLUMNS

TYPES: dict[type, str] = {int: "long", float: "double", bool: "boolean", str: "string"}


def model_signature(task: Task) -> dict[str, str]:
    """Classifier: Kaggle's columns to a label and a probability per class; language model: text to text."""
    if task.kind == "classification":
        inputs = {name: TYPES[column.kind] for name, column in COLUMNS.items() if name != "Survived"}
        probabilities = {f"probability_{label}": "float" for label in task.labels}
        return {"inputs": _columns(inputs), "outputs": _columns({"label": "string"} | probabilities)}
    output = "filled" if task.masked else "continuation"
    signature = {"inputs": _columns({"text": "string"}), "outputs": _columns({output: "string"})}
    return signature if task.masked else signature | {"params": _generation_options()}


def _columns(types: dict[str, str]) -> str:
    return json.dumps([{"type": kind, "name": name, "required": True} for name, kind in types.items()])


def _generation_options() -> str:
    """The options of generation with their defaults; those without one of these types are left out."""
    from mlxlab.inference.generate import GenerationConfig
    from mlxlab.inference.sampling import SamplingParams

    options: list[dict[str, object]] = [
        {"name": field.name, "default": field.default, "shape": None, "type": TYPES[type(field.default)]}
        for field in [*fields(GenerationConfig), *fields(SamplingParams)]
        if type(field.default) in TYPES
    ]
    return json.dumps([*options, {"name": "stop", "default": [], "shape": [-1], "type": "string"}])
