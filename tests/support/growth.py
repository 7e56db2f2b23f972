"""Random small models, and what an operation makes of them."""

from typing import Any

import mlx.core as mx
import numpy as np

from mlxlab.growth.operations.changes import CHANGES
from mlxlab.models.build import Architecture, build_model
from mlxlab.models.layers import named_parameters

TARGETS = {
    "transformer": "mlxlab.models.transformer.Transformer",
    "bert": "mlxlab.models.bert.Bert",
    "hybrid": "mlxlab.models.cnn_hybrid.CnnHybrid",
}
SIZES = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 12, "dropout": 0.0}


def draw_model(rng: np.random.Generator, *, rms_norm: bool = False) -> tuple[Architecture, dict[str, Any]]:
    """A random architecture, and the task that its model is built for."""
    family = "transformer" if rms_norm else str(rng.choice(list(TARGETS)))
    node: dict[str, Any] = {"_target_": TARGETS[family], **SIZES, "num_layers": int(rng.integers(1, 4))}
    node["mlp_type"] = str(rng.choice(["swiglu", "gelu", "geglu"]))
    node["position_embedding"] = str(rng.choice(["rope", "learned"]))
    if family == "transformer":
        node["norm_type"] = "rms" if rms_norm else str(rng.choice(["rms", "layer"]))
        node["num_kv_heads"] = int(rng.choice([1, 2]))
        node["tie_embeddings"] = bool(rng.random() < 0.5)
    else:
        node["pre_norm"] = bool(rng.random() < 0.5)
    if family == "hybrid":
        node |= {"num_filters": 8, "kernel_sizes": [2, 3], "dilations": [1]}
    kind = str(rng.choice(["classification", "language_modelling"]))
    return Architecture(node, 23), {"kind": kind, "num_classes": 3 if kind == "classification" else 23}


def new_model(architecture: Architecture, task: dict[str, Any], seed: int | None = None) -> Any:
    classes = architecture.vocab_size if task["kind"] == "language_modelling" else task["num_classes"]
    sizes = {"vocab_size": architecture.vocab_size, "num_classes": classes}
    model = build_model(architecture.node, kind=task["kind"], **sizes, seed=seed)
    model.eval()
    return model


def randomize(model: Any, seed: int) -> None:
    """Weights of the size that training gives them: initial ones hide faults, zero biases above all."""
    rng = np.random.default_rng(seed)
    arrays = named_parameters(model).items()
    model.load_weights(
        [(path, leaf + mx.array(rng.normal(0, 0.1, leaf.shape).astype(np.float32))) for path, leaf in sorted(arrays)]
    )


def draw_operation(rng: np.random.Generator, before: Architecture, name: str) -> dict[str, Any]:
    """An operation of that name which fits the architecture."""
    node = before.node
    layers = sorted([*range(node["num_layers"]), int(rng.integers(node["num_layers"]))])
    options: dict[str, Any] = {
        "stack": {"map": layers},
        "widen": {"feed_forward": node["intermediate_size"] + int(rng.integers(1, 30))},
        "resize_vocabulary": {"size": before.vocab_size + int(rng.integers(1, 9))},
        "set_lora": {"rank": int(rng.integers(1, 4))},
        "add_heads": {"heads": node["num_heads"] * 2},
        "grow_width": {"hidden_size": node["hidden_size"] + 2 * node["num_heads"]},
        "freeze": {"patterns": ["feed_forward.*"]},
    }
    return {"id": f"{name}-{rng.integers(99)}", "op": name, "when": {}, **options.get(name, {})}


def apply(model: Any, operation: dict[str, Any], before: Architecture, task: dict[str, Any], seed: int = 0) -> Any:
    """(model, architecture) after the operation."""
    change = CHANGES[operation["op"]]
    after = change.node(operation, before)
    arrays, _ = change.arrays(operation, before, named_parameters(model), seed)
    grown = new_model(after, task)
    assert {path: leaf.shape for path, leaf in named_parameters(grown).items()} == {
        path: leaf.shape for path, leaf in arrays.items()
    }
    grown.load_weights(list(arrays.items()))
    return grown, after


def batch(rng: np.random.Generator) -> tuple[mx.array, mx.array]:
    segment_ids = np.array([[1, 1, 1, 1, 2, 2, 0], [1, 1, 1, 2, 2, 2, 2]], np.int32)
    return mx.array(rng.integers(0, 23, segment_ids.shape).astype(np.int32)), mx.array(segment_ids)
