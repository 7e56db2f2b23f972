"""What a logged model takes and gives, as MLflow writes it down."""

import json
from dataclasses import MISSING, fields
from typing import Any

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
WRITTEN = {"text": "continuation"}  # what goes into a causal language model, and what comes out
FILLED = {"text": "filled"}  # ... a masked one
KINDS = {int: "long", float: "double", bool: "boolean"}


def model_signature(task: Task) -> dict[str, str]:
    """Kaggle's columns in, a label and a probability per class out; of a language model a text in and a text out."""
    if task.kind == "classification":
        columns = {"label": "string"} | {f"probability_{label}": "float" for label in task.labels}
        return _signature(COLUMNS, columns)
    names = FILLED if task.masked else WRITTEN
    signature = _signature(dict.fromkeys(names, "string"), dict.fromkeys(names.values(), "string"))
    return signature if task.masked else signature | {"params": json.dumps(_options())}


def _signature(inputs: dict[str, str], outputs: dict[str, str]) -> dict[str, str]:
    return {
        place: json.dumps([{"type": kind, "name": name, "required": True} for name, kind in columns.items()])
        for place, columns in (("inputs", inputs), ("outputs", outputs))
    }


def _options() -> list[dict[str, Any]]:
    """The options of generating, with their defaults; those without a number for a default are left out."""
    from mlxlab.inference.generate import GenerationConfig
    from mlxlab.inference.sampling import SamplingParams

    found = [
        (one.name, one.default)
        for one in [*fields(GenerationConfig), *fields(SamplingParams)]
        if one.default is not MISSING
    ]
    plain = [(name, default) for name, default in found if type(default) in KINDS]
    options = [{"name": name, "default": value, "shape": None, "type": KINDS[type(value)]} for name, value in plain]
    return [*options, {"name": "stop", "default": [], "shape": [-1], "type": "string"}]
