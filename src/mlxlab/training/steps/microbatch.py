"""A batch in parts that fit in memory: as many as asked for, as large as there is room for, smaller where there is not.

Losses and gradients of the parts are summed: however a batch is cut, its update is the same but for the rounding.
"""

import re
import sys
from collections.abc import Callable
from typing import Any, Literal

import mlx.core as mx
from mlx.utils import tree_map

from mlxlab.backend import memory_budget
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.steps.step import PerExample

Total = dict[str, Any]  # sums of the loss, the weight and the gradients
FULL = 0.8  # share of the budget that `auto` fills


class MicroBatcher:
    """How many rows a part has, and the sums over all parts.

    Args:
        parts: number of micro-batches; auto measures on the first batch how large they may be.
        separate_update: finish the gradient before the update starts, even that of a single micro-batch.
        retry_on_oom: after a failed allocation, try again with micro-batches of half the size. Implies separate_update.
    """

    def __init__(
        self, parts: int | Literal["auto"], *, separate_update: bool = False, retry_on_oom: bool = False
    ) -> None:
        self.parts, self.retry_on_oom = parts, retry_on_oom
        self.separate_update = separate_update or retry_on_oom
        self.max_tokens: int | None = None  # rows times length of a micro-batch

    def rows(self, batch: DeviceBatch, part: Callable[[DeviceBatch], Any]) -> int:
        """PerExample of each part of this batch but the last. A short batch makes smaller parts."""
        count, length = batch.tokens.shape
        if self.parts == "auto" and self.max_tokens is None:
            self.max_tokens = find_max_rows(batch, part, FULL * memory_budget()) * length
        expected = count if self.parts == "auto" else -(-count // self.parts)
        return expected if self.max_tokens is None else min(expected, max(self.max_tokens // length, 1))

    def accumulate(
        self,
        batch: DeviceBatch,
        first: Callable[[DeviceBatch], tuple[Total, PerExample]],
        further: Callable[[Total, DeviceBatch], tuple[Total, PerExample]],
        rows: int,
    ) -> tuple[Total, PerExample]:
        """The sums over all targets, and over those of each row."""
        random: Any = mx.random.state
        high, low = random[0].tolist() if self.retry_on_oom else (0, 0)
        while True:
            try:
                return _summed(split(batch, rows), first, further)
            except (RuntimeError, MemoryError) as error:
                if not self.retry_on_oom or rows == 1 or not is_allocation(error):
                    raise
                rows = -(-rows // 2)
            self.max_tokens = rows * batch.tokens.shape[1]
            mx.clear_cache()
            mx.random.seed((high << 32) | low)
            print(f"not enough memory: the batch again, {rows} rows at a time", file=sys.stderr)


def _summed(
    parts: list[DeviceBatch],
    first: Callable[[DeviceBatch], tuple[Total, PerExample]],
    further: Callable[[Total, DeviceBatch], tuple[Total, PerExample]],
) -> tuple[Total, PerExample]:
    total, rows = first(parts[0])
    mx.eval(total, rows)
    seen = [rows]
    for part in parts[1:]:
        # Evaluated part by part: the graph of all of them would hold the activations of all of them.
        total, rows = further(total, part)
        mx.eval(total, rows)
        seen.append(rows)
    return total, {name: mx.concatenate([rows[name] for rows in seen]) for name in seen[0]}


def split(batch: DeviceBatch, rows: int) -> list[DeviceBatch]:
    """Batches of so many rows each, the last with what is left."""
    return [_rows(batch, start, start + rows) for start in range(0, len(batch.example_ids), rows)]


def _rows(batch: DeviceBatch, start: int, end: int) -> DeviceBatch:
    return tree_map(lambda array: array[start:end], batch)


def find_max_rows(batch: DeviceBatch, part: Callable[[DeviceBatch], Any], budget: float) -> int:
    """Rows, 1, 2, 4, ..., that a part may have for its peak to stay within the budget of bytes; says what it found.

    Goes up from one row and stops before what would not fit: memory that is exceeded may end the process.
    """
    random: Any = mx.random.state
    high, low = random[0].tolist()
    rows, count = 1, len(batch.example_ids)
    base, peak = mx.get_active_memory(), _peak(batch, part, 1)
    while rows < count and base + 2 * (peak - base) <= budget:
        rows = min(2 * rows, count)
        peak = _peak(batch, part, rows)
    mx.random.seed((high << 32) | low)
    print(
        f"trainer.step.accumulate=auto: {rows} of {count} rows at a time,"
        f" {peak / 1e9:.2f} GB of the {budget / 1e9:.2f} GB that may be used",
        file=sys.stderr,
    )
    return rows


def _peak(batch: DeviceBatch, part: Callable[[DeviceBatch], Any], rows: int) -> int:
    mx.clear_cache()
    mx.reset_peak_memory()
    mx.eval(part(_rows(batch, 0, rows)))
    return mx.get_peak_memory()


def is_allocation(error: BaseException) -> bool:
    """Is this what MLX raises when memory runs out? It has no exception of its own for it."""
    return isinstance(error, MemoryError) or bool(re.search(r"alloc|out of memory", str(error), re.IGNORECASE))
