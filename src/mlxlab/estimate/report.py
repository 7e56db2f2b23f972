"""What a training run needs, as Markdown: parameters, operations, memory, and whether that fits a machine."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from mlx.utils import tree_map

from mlxlab.data.batch import Batch
from mlxlab.estimate.step import StepMemory, TracedStep
from mlxlab.markdown import markdown_table
from mlxlab.models.model import Model, count_trainable, parameter_shapes, training_flops
from mlxlab.wording import counted

TIGHT = 0.85  # of the budget: the estimate may be as much too low
MAX_ROWS = 65_536


@dataclass(frozen=True)
class Requirements:
    """What a training run needs; memory in bytes."""

    parameters: dict[str, int]  # by part
    trained_parameters: int
    operations_per_token: float
    batch: str  # which one the next numbers are of
    rows: int
    tokens_per_row: int
    micro_batches: int
    memory: dict[str, int]  # by part, and at the peak
    available_memory: int
    verdict: str  # fits, tight, or does not fit
    suggestions: list[str]

    def text(self) -> str:
        """Markdown."""
        parts = [[name, f"{count:,}"] for name, count in self.parameters.items()]
        parameters = markdown_table(
            ["part", "parameters"], [*parts, ["all", f"{sum(self.parameters.values()):,}"]]
        )
        usage = [[name, f"{value / 1e6:,.1f}"] for name, value in self.memory.items()]
        micro_batches = f"{self.micro_batches} micro-batch{'es' * (self.micro_batches != 1)}"
        peak, available = _amount(self.memory["peak"]), _amount(self.available_memory, 0)
        lines = [
            f"trains {self.trained_parameters:,} parameters, {self.operations_per_token:.3g} operations per token",
            f"{self.batch}: {counted(self.rows, 'row')} of {self.tokens_per_row:,} tokens, in {micro_batches}",
            f"{self.verdict}: peak {peak} of {available}",
            *self.suggestions,
        ]
        return "\n\n".join([parameters, markdown_table(["memory", "MB"], usage), "\n".join(lines)])


def requirements(
    model: Model, step: TracedStep, batch: Batch, which: str, examples: int | None, budget: int
) -> Requirements:
    """The needs of a run, the verdict and what to change.

    Args:
        which: names the batch.
        examples: training rows, more than which no batch has; None if they are not counted.
        budget: bytes that a run may use.
    """
    memory = step.memory(batch)
    rows, length = batch.tokens.shape
    return Requirements(
        parameters_by_part(model),
        count_trainable(model),
        training_flops(model, length),
        which,
        rows,
        length,
        step.options.accumulate,
        memory._asdict(),
        budget,
        verdict(memory.peak, budget),
        suggestions(step, batch, memory, budget, examples),
    )


def _amount(bytes_: int, digits: int = 1) -> str:
    """Bytes with their unit, which is MB below 100 GB."""
    if bytes_ < 10**11:
        return f"{bytes_ / 1e6:,.{digits}f} MB"
    return f"{bytes_ / 1e9:,.1f} GB" if bytes_ < 10**14 else f"{bytes_ / 1e12:,.1f} TB"


def verdict(peak: int, budget: int) -> str:
    if peak > budget:
        return "does not fit"
    return "tight" if peak > TIGHT * budget else "fits"


def suggestions(
    step: TracedStep, batch: Batch, memory: StepMemory, budget: int, examples: int | None = None
) -> list[str]:
    """The largest batch that fits, or the number of micro-batches with which this one does."""
    most = max_rows(step, batch, memory, TIGHT * budget)
    if not most:
        return [
            "no batch fits: choose a smaller model/size, a shorter data.seq_len or a smaller vocabulary"
        ]
    rows = len(batch.tokens)
    if examples is not None and most >= examples:
        return [f"a batch of all {counted(examples, 'training row')} would fit in one piece"]
    if most >= rows:
        return [f"largest batch that fits in one piece: {most:,} rows"]
    accumulate = -(-rows // most)
    return [
        f"to fit: trainer=optimized trainer.step.accumulate={accumulate}, or data.batch_size={most}"
    ]


def max_rows(step: TracedStep, batch: Batch, memory: StepMemory, budget: float) -> int:
    """The largest power of two of rows that fit without micro-batches; memory grows by the same amount for each."""
    whole = replace(step, options=replace(step.options, accumulate=1))
    rows = max(len(batch.tokens), 2)
    low, high = (whole.memory(resized(batch, count)).peak for count in (rows // 2, rows))
    by_row = max((high - low) / (rows - rows // 2), 1.0)
    fixed = high - by_row * rows
    return max(
        (1 << n for n in range(MAX_ROWS.bit_length()) if fixed + by_row * (1 << n) <= budget),
        default=0,
    )


def resized(batch: Batch, rows: int) -> Batch:
    """A batch with this number of rows; only its shapes matter."""
    shaped: tuple[object, ...] = tree_map(
        lambda each: np.zeros((rows, *each.shape[1:]), each.dtype), tuple(batch)
    )
    return Batch(*shaped)  # type: ignore[arg-type]


def parameters_by_part(model: Model) -> dict[str, int]:
    """Parameters of the parts of a model, all layers being one."""
    parts: dict[str, int] = {}
    for path, size in _sizes(model).items():
        name = ".".join(path.split(".")[:2]) if path.startswith("backbone.") else path.split(".")[0]
        parts[name] = parts.get(name, 0) + size
    return parts


def _sizes(model: Model) -> dict[str, int]:
    return {path: prod(shape) for path, shape in parameter_shapes(model).items()}
