"""Writes `model=tabular` as an ONNX file, which takes the columns of a table as they are."""

import json
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from onnx import GraphProto, TensorProto, checker, helper, inliner, numpy_helper, parser

from mlxlab.data.batch import TaskKind
from mlxlab.data.dataset import Encoder
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import write_atomic
from mlxlab.models.cells.columns import UNSEEN
from mlxlab.models.cells.inputs import CellEncoder
from mlxlab.models.interop.counterpart import TrainedModel, refuse_unwritable
from mlxlab.models.interop.model_card import Origin
from mlxlab.models.interop.onnx_functions import MODEL, OUTPUTS
from mlxlab.models.tabular import Features, TabularHead, TabularNetwork

LEAST_LIMIT = 1e-6


def table_encoder(encoder: Encoder) -> CellEncoder:
    """The encoder of a model that can be exported; ConfigError for another model, or a column of texts."""
    if not isinstance(encoder, CellEncoder):
        raise ConfigError("model: expected model=tabular, the only one for ONNX files")
    for name in encoder.readers:
        raise ConfigError(f"column {name!r}: expected no texts for an ONNX file")
    return encoder


def export_onnx(
    trained: TrainedModel, encoder: CellEncoder, missing: Sequence[str], out: Path, origin: Origin
) -> None:
    """Writes the columns, the mixture and the classes into one file, as a whole or not at all.

    Args:
        missing: texts of a category that count as missing besides the empty one.

    Raises:
        WriteError: the file cannot be written.
    """
    task = trained.task
    outputs = OUTPUTS[task.kind].replace("C", str(task.num_classes))
    model = parser.parse_model(MODEL.replace("OUTPUTS", outputs))
    graph = model.graph
    cells = _read_columns(graph, encoder, missing)
    mixture = _mix(graph, trained, *_read_features(graph, Features(trained.node["columns"]), cells))
    constants: dict[TaskKind, list[np.ndarray]] = {
        "classification": [np.array(task.labels, object), _limits(trained)],
        "multi_label": [np.array(trained.thresholds, np.float32)],
        "regression": [np.array([task.target_mean, task.target_deviation])],
    }
    names = []
    for output in graph.output:
        if output.name in encoder.types:
            output.name = f"predicted_{output.name}"
        names.append(output.name)
    call(graph, f"{task.kind}_answer", mixture, *constants[task.kind], outputs=names)

    model = inliner.inline_local_functions(model)
    metadata = {
        **origin.hashes,
        "run": origin.name,
        "step": str(origin.step),
        "classes": json.dumps(task.labels),
    }
    helper.set_model_props(model, metadata)
    checker.check_model(model, full_check=True)
    with refuse_unwritable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, model.SerializeToString(deterministic=True))


def _limits(trained: TrainedModel) -> np.ndarray:
    """(C,): the class is the one whose probability is the largest multiple of its limit."""
    task = trained.task
    limits = np.ones(task.num_classes, np.float32)
    if task.kind == "classification" and trained.thresholds:
        [threshold] = trained.thresholds
        positive = np.clip(np.float32(threshold), LEAST_LIMIT, 1 - LEAST_LIMIT)
        limits[:] = 1 - positive
        limits[task.positive_class] = positive
    return limits


def call(
    graph: GraphProto,
    operator: str,
    *inputs: str | np.ndarray | mx.array,
    outputs: Sequence[str] = (),
    domain: str = "mlxlab",
    **attributes: object,
) -> str:
    """Adds a call of a function of the model, or an operator of another domain; returns its only output.

    Args:
        outputs: names, where there are several.
    """
    output = f"mlxlab/{operator}_{len(graph.node)}"
    names = []
    for number, value in enumerate(inputs):
        if isinstance(value, str):
            names.append(value)
        else:
            names.append(f"{output}/{number}")
            graph.initializer.append(numpy_helper.from_array(np.array(value), names[-1]))
    graph.node.append(
        helper.make_node(operator, names, outputs or [output], domain=domain, **attributes)
    )
    return output


def _read_columns(graph: GraphProto, encoder: CellEncoder, missing: Sequence[str]) -> str:
    """Adds an input for each column, and what the encoder makes of it: cells (B, C)."""
    for name, column_type in encoder.types.items():
        # Float32 would move some numbers to the other side of a tree's threshold.
        kind = TensorProto.DOUBLE
        if column_type.kind == "category":
            kind = TensorProto.STRING
        graph.input.append(helper.make_tensor_value_info(name, kind, ["N", 1]))
    amounts = []
    for column in encoder.cells:
        value = column["name"]
        if encoder.types[value].kind == "boolean":
            value = call(graph, "boolean", value)
        if column["part"] == "category":
            codes = {each: float(code) for code, each in enumerate(column["categories"])}
            codes |= dict.fromkeys(["", *missing], np.nan)
            value = call(
                graph,
                "LabelEncoder",
                value,
                domain="ai.onnx.ml",
                keys_strings=list(codes),
                values_floats=list(codes.values()),
                default_float=UNSEEN,
            )
        amounts.append(call(graph, column["part"], value))
    scales = np.array([[each["median"], each["scale"]] for each in encoder.cells])
    return call(graph, "cells", call(graph, "Concat", *amounts, domain="", axis=1), scales)


def _read_features(graph: GraphProto, features: Features, cells: str) -> tuple[str, list[str]]:
    """Features (B, R), and the codes of numbers and of categories (B, N, Q), as `Features` gives them."""
    parts = []
    codes = []
    if features.numbers:
        numbers = call(graph, "columns", cells, np.array(features.numbers))
        values = call(graph, "number_values", numbers, features.means, features.deviations)
        parts += [values, call(graph, "number_flags", numbers, features.flagged_numbers)]
        codes.append(call(graph, "number_code", numbers, *features.bins))
    if features.categories:
        slots = mx.arange(features.category_slots)
        categories = call(graph, "columns", cells, np.array(features.categories))
        codes.append(call(graph, "category_code", categories, slots))
        parts.append(call(graph, "category_features", codes[-1], features.category_features))
    return call(graph, "Concat", *parts, domain="", axis=1), codes


def _mix(graph: GraphProto, trained: TrainedModel, features: str, codes: Sequence[str]) -> str:
    """Probabilities or numbers (B, O), as `TabularHead` mixes them; readers without a share are left out."""
    head = trained.model.head
    assert isinstance(head, TabularHead)
    weights = mx.stack([head.shares, head.sharpness], axis=1)
    parts = []
    for reader, weight in zip(head.readers, weights, strict=True):
        if weight[0] == 0:
            continue
        if isinstance(reader, TabularNetwork):
            logits = _read_network(graph, reader, features, codes)
        else:
            logits = call(graph, type(reader).__name__, features, *reader.parameters().values())
        parts.append(call(graph, f"{head.kind}_part", logits, weight))
    return call(graph, "Sum", *parts, domain="")


def _read_network(
    graph: GraphProto, network: TabularNetwork, features: str, codes: Sequence[str]
) -> str:
    """Logits (F, K, B, O)."""
    parts = [
        call(graph, "CodeEmbedding", code, embedding.weight, embedding.bias)
        for code, embedding in zip(codes, network.codes, strict=True)
    ]
    parts.append(call(graph, "repeat", features, network.signs))
    x = call(graph, "members", call(graph, "Concat", *parts, domain="", axis=2), network.signs)
    for layer in network.layers:
        x = call(graph, "MemberLayer", x, layer.weight, layer.scale, layer.bias)
    return call(graph, "LinearReader", x, network.out, network.out_bias)
