"""Process of the suite `info`. Arguments: family, size, task. Prints {step: [estimated, measured bytes]} as JSON."""

import gc
import json
import sys
from typing import Literal

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from benchmarks.config import read_config
from mlxlab import backend
from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch
from mlxlab.estimate.step import StepOptions, TracedStep
from mlxlab.models.build import build_model
from mlxlab.models.model import Model
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.loss import CrossEntropyLoss

ROWS, LENGTH, VOCABULARY, CLASSES = 8, 128, 4096, 2
LOSS = CrossEntropyLoss(0.0)
STEPS = {
    "simple": StepOptions(),
    "optimized": StepOptions(plain=False),
    "accumulate=4": StepOptions(plain=False, accumulate=4),
    "activation_checkpointing": StepOptions(plain=False, activation_checkpointing=True),
    "accumulate=4 activation_checkpointing": StepOptions(
        plain=False, accumulate=4, activation_checkpointing=True
    ),
}
Kind = Literal["classification", "language_modelling"]


def main(family: str, size: str, kind: Kind) -> None:
    node = read_config(f"model/{family}") | read_config(f"model/size/{size}")
    model = build_model(node, kind=kind, vocab_size=VOCABULARY, num_classes=CLASSES, seed=0)
    model.train()
    batch = random_batch(kind)
    peaks = {name: [estimated_peak(model, batch, options)] for name, options in STEPS.items()}
    mx.eval(model.parameters())  # only now: the estimates need no weights
    for name, options in STEPS.items():
        peaks[name].append(measured_peak(model, batch, options))
    print(json.dumps(peaks))


def random_batch(kind: Kind) -> Batch:
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, VOCABULARY, (ROWS, LENGTH)).astype(np.int32)
    targets = (
        tokens if kind == "language_modelling" else rng.integers(0, CLASSES, ROWS).astype(np.int32)
    )
    weights = np.ones(targets.shape, np.float32)
    return Batch(tokens, np.ones(tokens.shape, np.bool_), targets, weights, np.arange(ROWS))


def new_optimizer(model: Model) -> optim.Optimizer:
    optimizer: optim.Optimizer = instantiate(read_config("trainer/optimizer/adamw"))(
        learning_rate=1e-5
    )
    optimizer.init(model.trainable_parameters())
    return optimizer


def estimated_peak(model: Model, batch: Batch, options: StepOptions) -> int:
    return TracedStep(model, new_optimizer(model), LOSS, options).memory(batch).peak


def measured_peak(model: Model, batch: Batch, options: StepOptions) -> int:
    """Bytes at the peak of a step, in MLX's memory."""
    optimizer = new_optimizer(model)
    node = read_config("trainer/step/plain")
    if not options.plain:
        node = read_config("trainer/step/optimized") | {
            "compile": "never",
            "accumulate": options.accumulate,
        }
        node["activation_checkpointing"] = options.activation_checkpointing
    step = instantiate(node)(model=model, loss=LOSS, optimizer=optimizer)
    arrays = to_device(batch)
    gc.collect()  # the previous step and its optimizer form a reference cycle
    mx.eval(arrays, model.parameters(), optimizer.state)
    mx.clear_cache()
    mx.reset_peak_memory()
    step(arrays)
    return mx.get_peak_memory()


if __name__ == "__main__":
    backend.prepare()
    main(*sys.argv[1:])  # type: ignore[arg-type]
