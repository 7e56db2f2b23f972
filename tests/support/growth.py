"""Random small models in training, and what an operation makes of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlxlab.extensions.growth.grow import Training, grow
from mlxlab.extensions.growth.optimizer_state import OptimizerReport, average_of
from mlxlab.models.adapters.freeze import trainable_names
from mlxlab.models.build import Architecture, build_model
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model
from mlxlab.training.optim.optimizers import (
    EMAOptimizer,
    adafactor,
    adamw,
    assign_leaves,
    flatten_arrays,
    lion,
    muon,
    sgd,
)

TARGETS = {
    "transformer": "mlxlab.models.transformer.Transformer",
    "bert": "mlxlab.models.bert.Bert",
    "hybrid": "mlxlab.models.cnn_hybrid.CnnHybrid",
}
SIZES = {
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 12,
    "dropout": 0.0,
}
VOCAB_SIZE = 22
TASKS = {
    "language_modelling": {"kind": "language_modelling"},
    "classification": {"kind": "classification", "num_classes": 3},
}
MUON: Any = {"weight_decay": 0.1, "momentum": 0.9, "nesterov": True}
MUON |= {"betas": [0.9, 0.999], "eps": 1e-8}
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "adamw": partial(adamw, weight_decay=0.01, betas=[0.9, 0.999], eps=1e-8),
    "lion": partial(lion, weight_decay=0.01, betas=[0.9, 0.99]),
    "adafactor": partial(
        adafactor, weight_decay=0.0, clip_threshold=1.0, beta=0.9, scale_parameter=False
    ),
    "sgd": partial(sgd, weight_decay=0.01, momentum=0.9, nesterov=False),
    "muon": partial(muon, ns_steps=1, scale="adamw", adamw_lr_scale=1.0, **MUON),
}


STEPS = 2  # of training before the first operation


def draw_node(rng: np.random.Generator, family: str) -> dict[str, Any]:
    """A random `model` node of a family: transformer, rms (a transformer with RMSNorm), bert, post (-norm), hybrid."""
    backbone = {"rms": "transformer", "post": "bert"}.get(family, family)
    node: dict[str, Any] = {"_target_": TARGETS[backbone], **SIZES}
    node["num_layers"] = int(rng.integers(1, 4))
    node["mlp_type"] = str(rng.choice(["swiglu", "gelu", "geglu"]))
    node["position_embedding"] = str(rng.choice(["rope", "learned"]))
    if backbone == "transformer":
        node |= {"norm_type": "rms" if family == "rms" else "layer", "norm_eps": 0.01}
        node["num_kv_heads"] = int(rng.choice([1, 2]))
        node["tie_embeddings"] = bool(rng.random() < 0.5)
    else:
        node["pre_norm"] = family == "bert" or (family == "hybrid" and bool(rng.random() < 0.5))
        if not node["pre_norm"]:
            node["gated_layers"] = [0] if rng.random() < 0.5 else []
    if backbone == "hybrid":
        node |= {"num_filters": 8, "kernel_sizes": [2, 3], "dilations": [1], "fusion": "concat"}
    return node


FAMILIES = ("rms", "transformer", "bert", "post", "hybrid")
LORA = {"_target_": "mlxlab.models.options.LoRA", "rank": 2, "alpha": 4.0}
CODES = {"_target_": "mlxlab.models.options.Quantization", "bits": 4, "group_size": 32}
QUANTISED = {"quantization": CODES, "hidden_size": 32, "intermediate_size": 32}
STARTS: dict[str, dict[str, Any]] = {  # what a model may have before the first operation
    "plain": {},
    "frozen": {"freeze": ["embedding"]},
    "quantised": {**QUANTISED, "freeze": ["layers", "embedding"]},
    "lora": {"adapter": LORA},
    "dora": {"adapter": {**LORA, "dora": True}},
    "qlora": {**QUANTISED, "adapter": LORA},
}


def new_model(architecture: Architecture, task: dict[str, Any], seed: int | None = None) -> Model:
    sizes = {"vocab_size": architecture.vocab_size, "num_classes": architecture.vocab_size, **task}
    model = build_model(architecture.node, **sizes, seed=seed)
    model.eval()
    return model


def randomize(model: Any, seed: int) -> None:
    """Weights of the size that training gives them: initial ones hide faults, zero biases above all."""
    rng = np.random.default_rng(seed)
    arrays = named_parameters(model).items()
    floats = [(path, leaf) for path, leaf in sorted(arrays) if leaf.dtype == mx.float32]
    noise = {path: rng.normal(0, 0.1, leaf.shape).astype(np.float32) for path, leaf in floats}
    weights = [(path, leaf + mx.array(noise[path])) for path, leaf in floats]
    model.load_weights(weights, strict=False)


def counts_of(report: OptimizerReport) -> tuple[int, int, int]:
    """Parameters whose optimizer state was carried over, is new, or was dropped."""
    return report.carried, len(report.fresh), len(report.dropped)


@dataclass(frozen=True)
class View:
    """Inputs of a model, and the columns of its outputs that are compared; None is all."""

    tokens: np.ndarray
    segment_ids: np.ndarray
    columns: np.ndarray | None


@dataclass(frozen=True)
class Case:
    """A model in training, and what is compared before and after an operation on it."""

    training: Training
    task: dict[str, Any]
    optimizer: Callable[..., optim.Optimizer]
    average: bool
    view: View

    def new_optimizer(self, model: Model) -> optim.Optimizer:
        weights = model.trainable_parameters()
        optimizer = self.optimizer(learning_rate=0.01, parameters=flatten_arrays(weights))
        if self.average:
            optimizer = EMAOptimizer(optimizer, 0.9)
        optimizer.init(weights)
        return optimizer

    def train(self, rng: np.random.Generator, steps: int = 1) -> "Case":
        """The case after steps with random gradients."""
        model = new_model(self.training.architecture, self.task)
        model.load_weights(list(self.training.weights.items()))
        optimizer = self.new_optimizer(model)
        if self.training.optimizer:
            assign_leaves(optimizer.state, self.training.optimizer)
        for _ in range(steps):
            gradients = {
                path: mx.array(rng.normal(0, 0.1, leaf.shape).astype(np.float32))
                for path, leaf in tree_flatten(model.trainable_parameters())
            }
            optimizer.update(model, tree_unflatten(list(gradients.items())))
        weights, arrays = named_parameters(model), flatten_arrays(optimizer.state)
        mx.eval(weights, arrays)
        return replace(self, training=Training(self.training.architecture, weights, arrays))

    def new_training(self, architecture: Architecture) -> tuple[Model, optim.Optimizer]:
        model = new_model(architecture, self.task)
        return model, self.new_optimizer(model)

    def trained(self) -> set[str]:
        """The paths of the parameters that are trained."""
        return set(trainable_names(new_model(self.training.architecture, self.task)))

    def outputs(self, *, evaluated: bool) -> np.ndarray:
        """Those of the weights that are evaluated (their average, if there is one), or of those that are trained."""
        model = new_model(self.training.architecture, self.task)
        weights = self.training.weights | (average_of(self.training.optimizer) if evaluated else {})
        model.load_weights(list(weights.items()))
        logits = np.array(model(mx.array(self.view.tokens), mx.array(self.view.segment_ids)))
        return logits if self.view.columns is None else logits[..., self.view.columns]

    def grow(self, operation: dict[str, Any], seed: int = 0) -> tuple["Case", tuple[int, int, int]]:
        """The case after an operation."""
        grown = grow(operation, self.training, self.new_training, seed)
        training = grown.training
        mx.eval(training.weights, training.optimizer)
        columns = self.view.columns
        if columns is not None:
            columns = columns[columns < training.architecture.vocab_size]
        view = replace(self.view, columns=columns)
        return replace(self, training=training, view=view), counts_of(grown.report)


def new_case(
    node: dict[str, Any],
    kind: str,
    optimizer: str = "adamw",
    *,
    average: bool = False,
    seed: int = 0,
) -> Case:
    """A model after a few steps with random gradients: no statistic of its optimizer is 0."""
    rng, task = np.random.default_rng(seed), TASKS[kind]
    architecture = Architecture(node, VOCAB_SIZE)
    segment_ids = np.array([[1, 1, 1, 1, 2, 2, 0], [1, 1, 1, 2, 2, 2, 2]], np.int32)
    columns = np.arange(VOCAB_SIZE) if kind == "language_modelling" else None
    view = View(rng.integers(0, 12, segment_ids.shape).astype(np.int32), segment_ids, columns)
    model = new_model(architecture, task, seed)
    randomize(model, seed)
    training = Training(architecture, named_parameters(model), {})
    return Case(training, task, OPTIMIZERS[optimizer], average, view).train(rng, STEPS)


def draw_operation(rng: np.random.Generator, before: Architecture, name: str) -> dict[str, Any]:
    """An operation of that name that fits the sizes of the architecture; `shrink` and `rerank` are those of others."""
    node = before.node
    layers = sorted([*range(node["num_layers"]), int(rng.integers(node["num_layers"]))])
    choices = [["attention.*"], ["feed_forward.*", "attention.query"], ["embedding"]]
    targets = {"targets": choices[rng.integers(3)]}
    options: dict[str, Any] = {
        "stack": {"map": layers},
        "widen": {"feed_forward": node["intermediate_size"] + int(rng.integers(1, 30))},
        "resize_vocabulary": {"size": before.vocab_size + int(rng.integers(1, 9))},
        "shrink": {"op": "resize_vocabulary", "size": before.vocab_size - 1},
        "set_lora": {"rank": int(rng.integers(2, 4))},
        "add_heads": {"heads": node["num_heads"] * 2},
        "grow_width": {"hidden_size": node["hidden_size"] + 2 * node["num_heads"]},
        "freeze": {"patterns": ["feed_forward.*"]},
    }
    if name == "set_lora" and node.get("adapter") is None and rng.random() < 0.5:
        options[name] |= targets
    return {"id": f"{name}-{rng.integers(99)}", "op": name, "when": {}, **options.get(name, {})}
