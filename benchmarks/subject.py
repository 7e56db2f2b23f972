"""Models and runs that are measured: language models by size, and a BERT with one batch of random tokens."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.config import read_config
from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch
from mlxlab.models.build import build_model
from mlxlab.models.model import Model
from mlxlab.tracking.tracker import NoTracker, Tracker
from mlxlab.training.callback import FitContext
from mlxlab.training.device_batch import to_device
from mlxlab.training.state import StepResult


def language_model(
    family: str, size: str, vocab_size: int, *, seed: int = 0, **overrides: Any
) -> Model:
    """A language model of `model=family model/size=size`, with the same weights in every process.

    Args:
        overrides: keys of the `model` node.
    """
    mx.random.seed(seed)
    node = read_config(f"model/{family}") | read_config(f"model/size/{size}") | overrides
    model = build_model(node, kind="language_modelling", vocab_size=vocab_size, seed=seed)
    mx.eval(model.parameters())
    return model


class Subject:
    """A training run of a BERT classifier whose steps are called one by one."""

    def __init__(
        self,
        size: str,
        rows: int,
        length: int,
        tracker: Tracker | None = None,
        vocab_size: int = 1024,
    ) -> None:
        mx.random.seed(0)
        node = read_config("model/bert") | read_config(f"model/size/{size}")
        model = build_model(
            node, kind="classification", num_classes=2, vocab_size=vocab_size, seed=0
        )
        mx.eval(model.parameters())
        rng = np.random.default_rng(0)
        ones = np.ones(rows, np.float32)
        tokens = rng.integers(0, vocab_size, (rows, length)).astype(np.int32)
        self.batch = Batch(
            tokens,
            np.ones_like(tokens),
            rng.integers(0, 2, rows).astype(np.int32),
            ones,
            np.arange(rows),
        )
        self.context = FitContext("valid/loss", tracker or NoTracker())
        trainer = instantiate(trainer_node())
        self.state = trainer.init_state(model, NoData())
        self.take_step = trainer.make_step(self.state)
        model.train()

    def step(self) -> StepResult:
        """One optimizer step, recorded in the state; nothing is logged or saved."""
        result = self.take_step(to_device(self.batch))._replace(batch=self.batch)
        self.state.advance(self.batch)
        self.state.record(result)
        return result


class NoData:
    """Training data without batches: the subject passes its own."""

    def __iter__(self) -> Iterator[Batch]:
        return iter(())

    epoch, at_epoch_start, batch_size, batches_per_epoch = 0, False, 1, 1
    tokens_per_batch, skipped_records = None, 0

    def resize(self, batch_size: int) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def trainer_node(step: str = "plain") -> dict[str, Any]:
    """The config of a trainer that never ends, with a small constant learning rate."""
    node = read_config("trainer/simple")
    groups = {"loss": "cross_entropy", "step": step, "optimizer": "adamw", "schedule": "constant"}
    node |= {name: read_config(f"trainer/{name}/{option}") for name, option in groups.items()}
    node["loss"]["label_smoothing"] = 0.0
    node["schedule"]["warmup"] = 0
    return node | {"max_steps": 10**6, "epochs": None, "learning_rate": 1e-5}
