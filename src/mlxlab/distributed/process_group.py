"""Process groups: several processes take one optimizer step together (data parallel).

All ranks draw the same global batches, and each computes the rows of its shard: neither the order of the data nor the
sums depend on the number of processes. Losses and gradients are summed over all ranks and divided once by the total
weight.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlxlab.data.batch import Batch
from mlxlab.distributed.launch_env import check_parallel
from mlxlab.distributed.watchdog import Watchdog
from mlxlab.errors import ConfigError

PerExample = dict[str, mx.array]  # name -> (R,): a number for each row
T = TypeVar("T")
BUCKET_SIZE = 1 << 23  # numbers sent in one message: 32 MB of float32
MAX_TEXT_BYTES = 4096


class ProcessGroup(Protocol):
    """The processes that take an optimizer step together. All ranks must call the collectives in the same order."""

    rank: int
    size: int

    def shard(self, batch: Batch) -> Batch:
        """The rows of a global batch that this rank computes."""
        ...

    def all_reduce_sum(self, tree: Any, per_example: PerExample) -> tuple[Any, PerExample]:
        """Sums a tree of float32 arrays over all ranks, and gathers numbers by row of the last shard, (R,), into
        numbers by row of the global batch, (B,)."""
        ...

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """Element-wise maximum over all ranks. Also a barrier."""
        ...

    def rank_zero_first(self, act: Callable[[], T]) -> T:
        """Calls `act` on rank 0, then on all other ranks."""
        ...

    def on_worker_lost(self, save: Callable[[], str]) -> None:
        """Registers what to do when another process is lost; `save` returns the end of the message."""
        ...


class SingleProcess:
    """A group of one: nothing is communicated."""

    rank, size = 0, 1

    def shard(self, batch: Batch) -> Batch:
        return batch

    def all_reduce_sum(self, tree: Any, per_example: PerExample) -> tuple[Any, PerExample]:
        return tree, per_example

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        return list(numbers)

    def rank_zero_first(self, act: Callable[[], T]) -> T:
        return act()

    def on_worker_lost(self, save: Callable[[], str]) -> None: ...


class DataParallel:
    """Ranks connected by MLX's collectives (ring over TCP, MPI, NCCL or JACCL), as `mlx.launch` started them.

    Args:
        timeout: seconds that a rank waits for the others before it gives up.
    """

    def __init__(self, group: mx.distributed.Group, timeout: float) -> None:
        self.group, self.rank, self.size = group, group.rank(), group.size()
        self.watchdog = Watchdog(timeout, f"process {self.rank} of {self.size}")
        self.global_rows = 0  # of the last batch

    def shard(self, batch: Batch) -> Batch:
        """Rows rank, rank + size, ...; a row without a target if the batch has fewer rows than ranks."""
        self.global_rows = len(batch.example_ids)
        if self.rank < self.global_rows:
            return _rows(batch, slice(self.rank, None, self.size))
        first = _rows(batch, slice(1))
        return first._replace(loss_weights=np.zeros_like(first.loss_weights))

    def all_reduce_sum(self, tree: Any, per_example: PerExample) -> tuple[Any, PerExample]:
        scattered = {name: self._scatter(values) for name, values in per_example.items()}
        summed = self._sum({"tree": tree, "per_example": scattered})
        return summed["tree"], summed["per_example"]

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        array = mx.array(list(numbers), dtype=mx.int32)
        return self._collective(mx.distributed.all_max, array).tolist()  # type: ignore[return-value]

    def rank_zero_first(self, act: Callable[[], T]) -> T:
        if self.rank == 0:
            result = act()
            self.all_reduce_max([0])
            return result
        self.all_reduce_max([0])
        return act()

    def on_worker_lost(self, save: Callable[[], str]) -> None:
        self.watchdog.on_worker_lost = save

    def broadcast_text(self, text: str) -> str:
        """The text of rank 0, at most 4,096 bytes of UTF-8."""
        data = np.zeros(MAX_TEXT_BYTES, np.int32)
        if self.rank == 0:
            encoded = np.frombuffer(text.encode(), np.uint8)
            data[: len(encoded)] = encoded
        received = np.array(self.all_reduce_max(data.tolist()), np.uint8)
        return received[received > 0].tobytes().decode()

    def _scatter(self, values: mx.array) -> mx.array:
        """(R,) values of this shard at their rows of the global batch (B,), zero elsewhere."""
        indices = mx.arange(self.rank, self.global_rows, self.size)
        return mx.zeros(self.global_rows).at[indices].add(values) if indices.size else mx.zeros(self.global_rows)

    def _sum(self, tree: Any) -> Any:
        leaves: list[tuple[str, Any]] = tree_flatten(tree)  # type: ignore[assignment]
        summed: list[tuple[str, mx.array]] = []
        for bucket in bucket_leaves(leaves):
            flat = mx.concatenate([leaf.astype(mx.float32).reshape(-1) for _, leaf in bucket])
            flat = self._collective(mx.distributed.all_sum, flat)
            offsets = np.cumsum([leaf.size for _, leaf in bucket])[:-1].tolist()
            arrays = mx.split(flat, offsets) if offsets else [flat]
            summed += [(path, array.reshape(leaf.shape)) for (path, leaf), array in zip(bucket, arrays, strict=True)]
        return tree_unflatten(summed)

    def _collective(self, operation: Callable[..., mx.array], array: mx.array) -> mx.array:
        mx.eval(array)  # the work of this rank does not count towards the timeout of the others
        result = operation(array, group=self.group)
        self.watchdog.evaluate(result)
        return result


def _rows(batch: Batch, rows: slice) -> Batch:
    tokens, mask, targets, weights, ids = (array[rows] for array in batch[:5])
    return Batch(tokens, mask, targets, weights, ids, {name: array[rows] for name, array in batch.aux.items()})


def bucket_leaves(leaves: list[tuple[str, mx.array]]) -> list[list[tuple[str, mx.array]]]:
    """Groups leaves into buckets of at most BUCKET_SIZE numbers (or one larger leaf): few messages, little memory."""
    buckets: list[list[tuple[str, mx.array]]] = []
    free = 0
    for path, leaf in leaves:
        if leaf.size > free:
            buckets.append([])
            free = BUCKET_SIZE
        buckets[-1].append((path, leaf))
        free -= leaf.size
    return buckets


def init_process_group(parallel: Literal["none", "data", "fsdp"], timeout: float) -> SingleProcess | DataParallel:
    """The group of this process.

    Raises:
        ConfigError: the process was started with others and `parallel` does not say so, or the mode is not implemented.
    """
    group = mx.distributed.init()
    if parallel == "none":
        if group.size() > 1:
            raise ConfigError(f"trainer.parallel=none: expected data, this is one of {group.size()} processes")
        return SingleProcess()
    check_parallel(parallel)
    return DataParallel(group, timeout) if group.size() > 1 else SingleProcess()
