"""Small real components for tests: a model, a stream of batches, a trainer."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.checkpoint.store import Checkpoint, CheckpointStore
from mlxlab.data.batch import Batch, Task
from mlxlab.errors import ConfigError
from mlxlab.models.layers import apply_output_layer
from mlxlab.tracking.tracker import NoTracker, Tracker
from mlxlab.training.callback import Callback, Control, FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.loop import TrainingLoop
from mlxlab.training.losses.loss import CrossEntropyLoss, Loss, LossTerms
from mlxlab.training.optim.optimizers import adamw
from mlxlab.training.optim.schedules import cosine
from mlxlab.training.state import StepResult, TrainState
from mlxlab.training.steps.step import PlainStep
from mlxlab.training.trainer import Trainer

TASK = Task("classification", 2, ("no", "yes"))
TASKS = {
    "classification": TASK,
    "multi_label": Task("multi_label", 3, ("red", "green", "blue")),
    "regression": Task("regression", 1, target_mean=2.0, target_deviation=3.0),
}


OPTIMIZED_STEP = {  # arguments of OptimizedStep
    "max_grad_norm": 1.0,
    "accumulate": 1,
    "activation_checkpointing": False,
    "head_chunk": None,
    "dtype": "float32",
    "allow_slow_dtype": False,
    "compile": "never",
    "retry_on_oom": False,
}


class BagOfEmbeddings(nn.Module):
    """Mean of embeddings, dropout, one hidden layer: (B, T) tokens -> (B, C) logits."""

    def __init__(
        self, vocab_size: int = 20, width: int = 8, classes: int = 2, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, classes)

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        real = (mask > 0)[..., None].astype(mx.float32)
        x = (self.embedding(tokens) * real).sum(axis=1) / mx.maximum(real.sum(axis=1), 1)
        return apply_output_layer(self.out, nn.relu(self.hidden(self.dropout(x))))


class RandomBatches:
    """Batches of a fixed random data set; the order is a function of (seed, epoch). Some labels are unknown."""

    def __init__(
        self,
        rows: int = 22,
        batch_size: int = 4,
        seed: int = 0,
        shuffled: bool = True,
        kind: str = "classification",
    ) -> None:
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(0, 20, (rows, 6)).astype(np.int32)
        self.targets = (self.tokens.sum(axis=1) % 2).astype(np.int32)
        self.weights = np.ones(rows, np.float32)
        if kind == "multi_label":
            self.targets = (self.tokens[:, :3] % 2).astype(np.float32)
            self.weights = (rng.random((rows, 3)) < 0.8).astype(np.float32)
        if kind == "regression":
            self.targets = (self.tokens.mean(axis=1) / 10 - 1).astype(np.float32)
        self.batch_size, self.seed, self.shuffled = batch_size, seed, shuffled
        self.epoch = self.index = 0
        self.tokens_per_batch, self.skipped_records = None, 0

    @property
    def at_epoch_start(self) -> bool:
        return self.index == 0

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.targets) // self.batch_size)

    def __iter__(self):
        order = np.arange(len(self.targets))
        if self.shuffled:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        epoch = self.epoch
        while self.epoch == epoch:
            rows = order[self.index * self.batch_size : (self.index + 1) * self.batch_size]
            self.index += 1
            if self.index == self.batches_per_epoch:
                self.epoch, self.index = epoch + 1, 0
            yield self.batch(rows)

    def batch(self, rows: np.ndarray) -> Batch:
        tokens = self.tokens[rows]
        return Batch(
            tokens,
            np.ones_like(tokens),
            self.targets[rows],
            self.weights[rows],
            rows.astype(np.int64),
        )

    def resize(self, batch_size: int) -> None:
        raise ConfigError("the batches of this data set cannot change their size")

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "index": self.index}

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self.index = state["epoch"], state["index"]


class ResizableBatches(RandomBatches):
    """Batches of a fixed order whose size may change; the position is in rows."""

    def __iter__(self):
        epoch = self.epoch
        while self.epoch == epoch:
            rows = np.arange(self.index, min(self.index + self.batch_size, len(self.targets)))
            self.index = (self.index + len(rows)) % len(self.targets)
            self.epoch = epoch + (self.index == 0)
            yield self.batch(rows)

    def resize(self, batch_size):
        self.batch_size = batch_size


class FixedBatches:
    """The same batches every time: a validation set."""

    def __init__(
        self, batch_size: int = 4, rows: int = 18, seed: int = 9, kind: str = "classification"
    ) -> None:
        self.args = (rows, batch_size, seed, False, kind)

    def __iter__(self):
        return iter(RandomBatches(*self.args))


def make_model(seed: int = 0, **kwargs: object) -> BagOfEmbeddings:
    mx.random.seed(seed)
    model = BagOfEmbeddings(**kwargs)
    mx.eval(model.parameters())
    return model


class FunctionLoss(Loss):
    """A loss made from a function of (model, batch) that returns one value per target."""

    def __init__(self, function: Callable[[nn.Module, DeviceBatch], mx.array]) -> None:
        self.function = function

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        return LossTerms(self.function(model, batch), {})


def make_trainer(**changes: object) -> Trainer:
    defaults = {
        "learning_rate": 1e-2,
        "epochs": 3,
        "max_steps": None,
        "max_tokens": None,
        "eval_every": None,
        "eval_batches": None,
        "test_batches": None,
        "log_every": 4,
        "label_smoothing": 0.0,
        "max_nonfinite_steps": 3,
        "max_rollbacks": 2,
        "parallel": "none",
        "worker_timeout": 60.0,
        "ema_decay": None,
        "loss": CrossEntropyLoss(0.0),
        "step": partial(PlainStep, max_grad_norm=1.0),
        "optimizer": partial(adamw, weight_decay=0.01, betas=[0.9, 0.999], eps=1e-8),
        "schedule": partial(cosine, warmup=0.1, final_lr_ratio=0.0),
    }
    return Trainer(**(defaults | changes))  # type: ignore[arg-type]


class Run:
    """A model, its data, and what a fit makes of them."""

    def __init__(self, model: nn.Module, data: RandomBatches, context: FitContext) -> None:
        self.model, self.data, self.context = model, data, context
        self.state: TrainState = make_trainer().init_state(model, data)

    @property
    def control(self) -> Control:
        return self.context.control


def make_run(
    model: nn.Module | None = None,
    data: RandomBatches | None = None,
    tracker: Tracker | None = None,
    **context: object,
) -> Run:
    return Run(
        model or make_model(),
        data or RandomBatches(),
        FitContext("valid/loss", tracker or NoTracker(), **context),  # type: ignore[arg-type]
    )


def fit(
    trainer: Trainer,
    run: Run | None = None,
    callbacks: Sequence[Callback] = (),
    checkpointer: Checkpointer | NoCheckpointer | None = None,
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
    task: Task = TASK,
) -> Run:
    """Trains a new state to its end, or the one of a checkpoint."""
    run = run or make_run()
    run.state = trainer.init_state(run.model, run.data)
    args = (FixedBatches(kind=task.kind), task, callbacks, checkpointer or NoCheckpointer(), seed)
    TrainingLoop(trainer, run.context, run.state, *args).run(checkpoint)
    return run


class NoOpCallback(Callback):
    """A callback that does nothing; tests define the moments that they need."""

    runs_on_all_ranks = True


class StopAt(NoOpCallback):
    """Ends the run after a step, as SIGTERM would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, context, state, result) -> None:
        if state.progress.step == self.step:
            context.control.stop_signal, context.control.stop_reason = 15, "signal 15"


def fit_in(
    folder: Path,
    trainer: Trainer,
    run: Run | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    stop_at: int | None = None,
    resume: bool = False,
    every_steps: int | None = 3,
    background: bool = False,
) -> Run:
    """A fit with two checkpoints in a folder: it stops after a step, or continues from the last checkpoint."""
    folder.mkdir(exist_ok=True)
    checkpoint = CheckpointStore(folder / "checkpoints").load() if resume else None
    stop = [StopAt(stop_at)] if stop_at else []
    saving = Checkpointer(every_steps, 2, background, folder=folder)
    return fit(trainer, run, [*stop, *callbacks], saving, checkpoint, seed=4)


def step_scalars(result: StepResult) -> dict[str, float]:
    """The numbers of a step by name; `finite` is 1 or 0."""
    numbers = {
        name: float(getattr(result, name)) for name in ("loss", "weight", "grad_norm", "finite")
    }
    return numbers | result.terms


def weights_of(model: nn.Module) -> dict[str, np.ndarray]:
    from mlx.utils import tree_flatten

    return {name: np.array(leaf) for name, leaf in tree_flatten(model.parameters())}


class Recorder(NoTracker):
    """A tracker that remembers: for tests of what is logged when."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.artifacts: list[Path] = []

    def log_metrics(self, step: int, metrics: dict[str, float]) -> None:
        self.lines.append((step, dict(metrics)))

    def log_artifact(self, path: Path, to: str = "") -> None:
        self.artifacts.append(path)


def assert_same(actual: Mapping, expected: Mapping) -> None:
    """Every array of `expected` has the same elements in `actual`."""
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


def assert_close(actual: Mapping, expected: Mapping, **tolerances: float) -> None:
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, **tolerances, err_msg=name)
