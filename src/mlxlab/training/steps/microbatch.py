"""Gradient accumulation over micro-batches, whose size may be measured and is halved when memory runs out.

Losses and gradients of the micro-batches are summed: however a batch is split, its step is the same up to rounding.
"""

import logging
import re
from collections.abc import Callable
from typing import Literal

import mlx.core as mx
from mlx.utils import tree_map

from mlxlab.backend import memory_budget
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.random_state import save_random_state
from mlxlab.training.steps.step import Sums, Totals

logger = logging.getLogger(__name__)

MAX_BUDGET_FRACTION = 0.8  # of the memory budget, filled by `auto`
ComputeSums = Callable[[DeviceBatch, Totals | None], Sums]  # of a micro-batch, its totals added to those so far


class MicroBatcher:
    """Splits batches into micro-batches and sums their losses and gradients.

    Args:
        accumulate: number of micro-batches; auto measures on the first batch how large they may be.
        retry_on_oom: after a failed allocation, try again with micro-batches of half the size.
    """

    def __init__(self, accumulate: int | Literal["auto"], *, retry_on_oom: bool) -> None:
        self.accumulate, self.retry_on_oom = accumulate, retry_on_oom
        self.max_tokens: int | None = None  # rows times length of a micro-batch

    def micro_batch_rows(self, batch: DeviceBatch, compute: ComputeSums) -> int:
        """Rows of each micro-batch but the last; fewer where the batch is short, so that their number stays."""
        count, length = batch.tokens.shape
        if self.accumulate == "auto" and self.max_tokens is None:
            self.max_tokens = find_max_rows(batch, compute, MAX_BUDGET_FRACTION * memory_budget()) * length
        rows = count if self.accumulate == "auto" else -(-count // self.accumulate)
        return rows if self.max_tokens is None else min(rows, max(self.max_tokens // length, 1))

    def sum_gradients(self, batch: DeviceBatch, compute: ComputeSums, rows: int) -> Sums:
        """The totals over all targets, and the sums for each row, from micro-batches of `rows` rows.

        Raises:
            RuntimeError, MemoryError: an allocation failed, and there is no retry or one row is too many.
        """
        restore_random_state = save_random_state()
        while True:
            try:
                return _sum_micro_batches(split(batch, rows), compute)
            except (RuntimeError, MemoryError) as error:
                # MLX has no exception of its own for running out of memory.
                failed = isinstance(error, MemoryError) or re.search("alloc|out of memory", str(error), re.IGNORECASE)
                if not self.retry_on_oom or rows == 1 or not failed:
                    raise
                rows = -(-rows // 2)
            self.max_tokens = rows * batch.tokens.shape[1]
            mx.clear_cache()
            restore_random_state()
            logger.warning(f"out of memory: repeating the step with micro-batches of {rows} rows")


def _sum_micro_batches(micro_batches: list[DeviceBatch], compute: ComputeSums) -> Sums:
    totals, per_example = compute(micro_batches[0], None)
    mx.eval(totals, per_example)
    rows = [per_example]
    for micro_batch in micro_batches[1:]:
        # Evaluated one by one: a graph of all of them would hold all their activations.
        totals, per_example = compute(micro_batch, totals)
        mx.eval(totals, per_example)
        rows.append(per_example)
    return totals, {name: mx.concatenate([sums[name] for sums in rows]) for name in per_example}


def split(batch: DeviceBatch, rows: int) -> list[DeviceBatch]:
    """Consecutive micro-batches of `rows` rows; the last may be smaller."""
    starts = range(0, len(batch.example_ids), rows)
    return [tree_map(lambda array, start=start: array[start : start + rows], batch) for start in starts]


def find_max_rows(batch: DeviceBatch, compute: ComputeSums, budget: float) -> int:
    """The largest of 1, 2, 4, ... rows for which the peak memory of `compute` stays within `budget` bytes.

    Starts at one row and stops before a size that would not fit: exceeding the memory may end the process.
    """
    restore_random_state = save_random_state()
    rows, count = 1, len(batch.example_ids)
    baseline, peak = mx.get_active_memory(), _peak_bytes(split(batch, 1)[0], compute)
    while rows < count and baseline + 2 * (peak - baseline) <= budget:
        rows = min(2 * rows, count)
        peak = _peak_bytes(split(batch, rows)[0], compute)
    restore_random_state()
    logger.info(
        f"trainer.step.accumulate=auto: micro-batches of {rows} of {count} rows;"
        f" peak memory {peak / 1e9:.2f} GB, budget {budget / 1e9:.2f} GB"
    )
    return rows


def _peak_bytes(batch: DeviceBatch, compute: ComputeSums) -> int:
    mx.clear_cache()
    mx.reset_peak_memory()
    mx.eval(compute(batch, None))
    return mx.get_peak_memory()
