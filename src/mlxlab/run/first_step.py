"""The first step of a run, taken in a process of its own to measure its time and memory."""

import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import prod
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx

from mlxlab import backend
from mlxlab.backend.memory import peak_memory
from mlxlab.backend.ops.native.activation import activate
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError
from mlxlab.evaluation.parts.data import Config
from mlxlab.models.model import Model, count_trainable, parameter_shapes, training_flops
from mlxlab.run.resume.start import Start
from mlxlab.run.session import Session, build_session
from mlxlab.terminal.messages import configure_logging
from mlxlab.terminal.tables import markdown_table
from mlxlab.terminal.wording import counted
from mlxlab.training.device_batch import to_device
from mlxlab.training.state import TrainState

SEARCHED_BATCHES = 1000  # The rows of a labelled data set differ in length, and so do its batches.


@dataclass(frozen=True)
class FirstStep:
    """What a run trains, and what its first step took; memory in bytes.

    Attributes:
        parameters: by part, all layers being one.
        batch: which batch was taken.
        peak_memory: of MLX's arrays during the step, with weights, optimizer and teachers.
        resident_memory: of the process at its peak.
    """

    parameters: dict[str, int]
    trained_parameters: int
    operations_per_token: float
    batch: str
    rows: int
    tokens_per_row: int
    seconds: float
    peak_memory: int
    resident_memory: int
    available_memory: int

    def as_text(self) -> str:
        """A table of the parameters, and a line for each figure."""
        parts = [[name, f"{count:,}"] for name, count in self.parameters.items()]
        parts.append(["all", f"{sum(self.parameters.values()):,}"])
        rows = counted(self.rows, "row")
        peak = f"{self.peak_memory / 1e6:,.1f} MB in MLX"
        resident = f"{self.resident_memory / 1e6:,.1f} MB resident"
        operations = f"{self.operations_per_token:.3g} operations per token"
        lines = [
            markdown_table(["part", "parameters"], parts),
            "",
            f"trains {self.trained_parameters:,} parameters, {operations}",
            f"{self.batch}: {rows} of {self.tokens_per_row:,} tokens",
            f"one step: {self.seconds:.2f} s",
            f"peak memory: {peak}, {resident}, of {self.available_memory / 1e6:,.1f} MB",
        ]
        return "\n".join(lines)


def measure_first_step(cfg: Config) -> FirstStep:
    """Takes the first step of a resolved config in another process, on the largest of its first batches.

    Raises:
        UserError: as a run of this config.
        ConfigError: the step does not fit in memory.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), configure_logging) as pool:
        try:
            return pool.submit(_step_of_config, cfg).result()
        except BrokenProcessPool:
            reason = "its process was killed"
        except (RuntimeError, MemoryError) as error:
            if not backend.is_out_of_memory(error):
                raise
            reason = "an allocation failed"
    raise ConfigError(f"a step of this run does not fit in memory: {reason}")


def _step_of_config(cfg: Config) -> FirstStep:
    with suppress(OSError):  # Where memory runs out, Linux ends this process before all others.
        Path("/proc/self/oom_score_adj").write_text("1000")
    backend.prepare()
    activate(cfg["backend"]["native"])
    with TemporaryDirectory() as folder:
        session = build_session(Start(cfg), Path(folder))
        return take_step(session, session.init_state())


def take_step(session: Session, state: TrainState) -> FirstStep:
    """Takes a step from a state, which changes."""
    step = session.trainer.make_step(state)
    state.model.train()
    name, batch = _largest_batch(session.data.train, hasattr(session.data, "num_examples"))

    mx.reset_peak_memory()
    start = time.perf_counter()
    step(to_device(session.trainer.annotate(batch, 0.0)))
    seconds = time.perf_counter() - start

    rows, length = batch.tokens.shape
    return FirstStep(
        parameters=_parameters_by_part(session.model),
        trained_parameters=count_trainable(session.model),
        operations_per_token=training_flops(session.model, length),
        batch=name,
        rows=rows,
        tokens_per_row=length,
        seconds=seconds,
        peak_memory=mx.get_peak_memory(),
        resident_memory=peak_memory(),
        available_memory=backend.memory_budget(),
    )


def _largest_batch(batches: Iterable[Batch], differ: bool) -> tuple[str, Batch]:
    """The batch with the most tokens, and its name; where all have one shape, the first one."""
    if not differ:
        return "first batch", next(iter(batches))
    largest = max(islice(batches, SEARCHED_BATCHES), key=lambda batch: batch.tokens.size)
    return f"largest of the first {SEARCHED_BATCHES:,} batches", largest


def _parameters_by_part(model: Model) -> dict[str, int]:
    parts: dict[str, int] = {}
    for path, shape in parameter_shapes(model).items():
        names = path.split(".")
        depth = 2 if names[0] == "backbone" else 1
        part = ".".join(names[:depth])
        parts[part] = parts.get(part, 0) + prod(shape)
    return parts
