"""The loss of a task, whichever it is, and which losses fit which task."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import mlx.core as mx

from mlxlab.backend.ops.cross_entropy import binary_cross_entropy, cross_entropy
from mlxlab.data.batch import Task, TaskKind
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Positive, Share
from mlxlab.schema.dotted_keys import walk
from mlxlab.training.losses.loss import LogitLoss, huber, squared_error

TargetLoss = Callable[
    [mx.array, mx.array], mx.array
]  # outputs of a model, targets -> one float32 value per target

_LOSSES = f"{__package__}."
FITTING: dict[
    str, tuple[str, tuple[TaskKind, ...]]
] = {  # options of trainer/loss that fit only some tasks
    "cross_entropy": (f"{_LOSSES}loss.CrossEntropyLoss", ("classification", "language_modelling")),
    "weighted": (f"{_LOSSES}loss.WeightedCrossEntropyLoss", ("classification",)),
    "focal": (f"{_LOSSES}loss.FocalLoss", ("classification", "language_modelling")),
    "binary_cross_entropy": (f"{_LOSSES}loss.BinaryCrossEntropyLoss", ("multi_label",)),
    "mse": (f"{_LOSSES}loss.SquaredErrorLoss", ("regression",)),
    "huber": (f"{_LOSSES}loss.HuberLoss", ("regression",)),
}


class TaskLoss(LogitLoss):
    """Cross-entropy of classes and tokens, binary cross-entropy of labels, squared error or Huber loss of numbers.

    Args:
        label_smoothing: as in cross_entropy and binary_cross_entropy; a regression has none.
        regression: mse is the squared error, huber the Huber loss.
        huber_delta: the error, in standard deviations of the target, from which on the Huber loss is linear.
    """

    def __init__(
        self,
        label_smoothing: Share,
        regression: Literal["mse", "huber"],
        huber_delta: Positive,
        *,
        task: Task,
    ) -> None:
        self.compute = target_loss(task.kind, label_smoothing)
        if task.kind == "regression" and regression == "huber":
            self.compute = partial(huber, delta=huber_delta)

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        return self.compute(logits, targets)


def target_loss(kind: TaskKind, label_smoothing: float) -> TargetLoss:
    """The loss of a kind of task; of a regression the squared error."""
    if kind == "multi_label":
        return partial(binary_cross_entropy, label_smoothing=label_smoothing)
    if kind == "regression":
        return squared_error
    return partial(cross_entropy, label_smoothing=label_smoothing)


def refuse_misfit(loss: dict[str, Any], kind: TaskKind) -> None:
    """ConfigError if `trainer.loss`, or a loss inside it, is for other tasks. A user's own losses are not checked."""
    tasks_of = dict(FITTING.values())
    for path, node in walk(loss, "trainer.loss"):
        if not isinstance(node, dict):
            continue
        target = node.get("_target_")
        if target in tasks_of and kind not in tasks_of[target]:
            options = ", ".join(
                ["auto", *(name for name, (_, kinds) in FITTING.items() if kind in kinds)]
            )
            got = f"{target.rpartition('.')[2]}, for {' and '.join(tasks_of[target])}"
            raise ConfigError(f"{path}: expected a loss for the task {kind} ({options}), got {got}")
