"""The signature of a model in MLflow, without what reads labelled rows: each run needs it."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from mlxlab.data.dataset import Encoder, RowEncoder
from mlxlab.inference.generate import GenerationConfig

if TYPE_CHECKING:
    from mlxlab.data.labelled.types import ColumnType

OUTPUTS = {
    "classification": {"label": "string"},
    "multi_label": {"labels": "any"},
    "regression": {"value": "double"},
}
TYPES: dict[type, str] = {int: "long", float: "double", bool: "boolean", str: "string"}


def model_signature(encoder: Encoder) -> dict[str, str] | None:
    """The types for MLflow: the columns of the rows to those of `Predictions`, or text to text.

    None for labelled data whose encoder reads no rows: such a model predicts nothing.
    """
    task = encoder.task
    if isinstance(encoder, RowEncoder):
        probabilities = {f"probability_{name}": "double" for name in task.labels}
        outputs = OUTPUTS[task.kind] | probabilities
        # MLflow refuses 38 for a double and NaN for a long: a cell is read as it would be from a file.
        return {
            "inputs": _columns(dict.fromkeys(encoder.columns, "any")),
            "outputs": _columns(outputs),
        }
    if task.kind != "language_modelling":
        return None
    output = "filled" if task.masked else "continuation"
    signature = {"inputs": _columns({"text": "string"}), "outputs": _columns({output: "string"})}
    return signature if task.masked else signature | {"params": _generation_options()}


def row_columns(encoder: RowEncoder) -> str:
    """JSON: the columns that a model reads, with their types."""
    from mlxlab.data.labelled.encoder import TypedEncoder

    if not isinstance(encoder, TypedEncoder):
        return _columns(dict.fromkeys(encoder.columns, "any"))
    types = {name: _mlflow_type(encoder.types[name]) for name in encoder.columns}
    return _columns(types)


def _mlflow_type(column: "ColumnType") -> str:
    """Any, where a table may have the same values in columns of several types: 1 and "1", a date and its text."""
    match column.kind:
        case "integer":
            return "long"
        case "number":
            return "double"
        case "text":
            return "string"
        case "category" if not column.numeric:
            return "string"
    return "any"


def _columns(types: Mapping[str, str]) -> str:
    return json.dumps(
        [{"type": kind, "name": name, "required": True} for name, kind in types.items()]
    )


def _generation_options() -> str:
    """The options of generation with their defaults; those without one of these types are left out."""
    options: list[dict[str, object]] = [
        {
            "name": field.name,
            "default": field.default,
            "shape": None,
            "type": TYPES[type(field.default)],
        }
        for field in fields(GenerationConfig)
        if type(field.default) in TYPES
    ]
    return json.dumps([*options, {"name": "stop", "default": [], "shape": [-1], "type": "string"}])
