"""Several processes, one update: the rows of a batch are dealt out, sums are added up, wishes are agreed on.

Every process draws the same global batches and takes its own rows of them: neither the order of the data nor the sums
depend on how many processes there are. Losses and gradients are summed over all and divided once by the weight of all.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError, WorkerLostError

Rows = dict[str, mx.array]
BUCKET_SIZE = 1 << 23  # numbers sent in one piece: 32 MB of float32
TICK = 0.25  # seconds between two looks at the clock


class ProcessGroup(Protocol):
    """The processes that make one update together."""

    rank: int
    size: int

    def shard(self, batch: Batch) -> Batch:
        """The rows of a global batch that are this process's."""
        ...

    def all_reduce_sum(self, tree: Any, rows: Rows) -> tuple[Any, Rows]:
        """The sum of a tree of float32 arrays over all processes, evaluated; and numbers by row of the share last taken
        (R,) as numbers by row of the global batch (B,)."""
        ...

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """The greatest of each number over all processes; nobody goes on before all have asked."""
        ...

    def rank_zero_first(self, act: Callable[[], Any]) -> Any:
        """Process 0 acts before the others do."""
        ...

    def on_worker_lost(self, save: Callable[[], str]) -> None:
        """What to do, and say, when another process is gone."""
        ...


class SingleProcess:
    """One process: everything is its own."""

    rank, size = 0, 1

    def shard(self, batch: Batch) -> Batch:
        return batch

    def all_reduce_sum(self, tree: Any, rows: Rows) -> tuple[Any, Rows]:
        return tree, rows

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        return list(numbers)

    def rank_zero_first(self, act: Callable[[], Any]) -> Any:
        return act()

    def on_worker_lost(self, save: Callable[[], str]) -> None: ...


class DataParallel:
    """Processes over MLX's collectives: a ring of TCP, MPI, NCCL or JACCL, as `mlx.launch` started them.

    Args:
        timeout: seconds that a process waits for the others before it gives up.
    """

    def __init__(self, group: mx.distributed.Group, timeout: float) -> None:
        self.group, self.rank, self.size = group, group.rank(), group.size()
        self.watch = Watchdog(timeout, f"process {self.rank} of {self.size}")
        self.rows = 0  # of the global batch

    def shard(self, batch: Batch) -> Batch:
        """Rows rank, rank + size, ...; where there is none, a row without a target."""
        self.rows = len(batch.example_ids)
        if self.rank < self.rows:
            return _rows(batch, slice(self.rank, None, self.size))
        first = _rows(batch, slice(1))
        return first._replace(loss_weights=np.zeros_like(first.loss_weights))

    def all_reduce_sum(self, tree: Any, rows: Rows) -> tuple[Any, Rows]:
        summed = self._sum({"tree": tree, "rows": {name: self._spread(values) for name, values in rows.items()}})
        return summed["tree"], summed["rows"]

    def _spread(self, values: mx.array) -> mx.array:
        places = mx.arange(self.rank, self.rows, self.size)
        return mx.zeros(self.rows).at[places].add(values) if places.size else mx.zeros(self.rows)

    def _sum(self, tree: Any) -> Any:
        leaves: list[tuple[str, Any]] = tree_flatten(tree)  # type: ignore[assignment]
        summed: list[tuple[str, mx.array]] = []
        for piece in bucket_leaves(leaves):
            flat = mx.concatenate([leaf.astype(mx.float32).reshape(-1) for _, leaf in piece])
            flat = self._together(mx.distributed.all_sum, flat)
            places = np.cumsum([leaf.size for _, leaf in piece])[:-1].tolist()
            parts = mx.split(flat, places) if places else [flat]
            summed += [(path, part.reshape(leaf.shape)) for (path, leaf), part in zip(piece, parts, strict=True)]
        return tree_unflatten(summed)

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        return self._together(mx.distributed.all_max, mx.array(list(numbers), dtype=mx.int32)).tolist()  # type: ignore[return-value]

    def rank_zero_first(self, act: Callable[[], Any]) -> Any:
        if self.rank == 0:
            found = act()
            self.all_reduce_max([0])
            return found
        self.all_reduce_max([0])
        return act()

    def _together(self, collective: Callable[..., mx.array], array: mx.array) -> mx.array:
        mx.eval(array)  # this process's own work, for which the clock of the others does not run
        found = collective(array, group=self.group)
        self.watch.evaluate(found)
        return found

    def broadcast_text(self, text: str) -> str:
        """The text of process 0, in UTF-8 of at most 4,096 bytes."""
        data = np.zeros(4096, np.int32)
        if self.rank == 0:
            encoded = np.frombuffer(text.encode(), np.uint8)
            data[: len(encoded)] = encoded
        found = np.array(self.all_reduce_max(data.tolist()), np.uint8)
        return found[found > 0].tobytes().decode()

    def on_worker_lost(self, save: Callable[[], str]) -> None:
        self.watch.rescue = save


def _rows(batch: Batch, rows: slice) -> Batch:
    tokens, mask, targets, weights, ids = (array[rows] for array in batch[:5])
    return Batch(tokens, mask, targets, weights, ids, {name: array[rows] for name, array in batch.aux.items()})


def bucket_leaves(leaves: list[tuple[str, mx.array]]) -> list[list[tuple[str, mx.array]]]:
    """Leaves in groups of at most CHUNK numbers (or one greater leaf): few messages, little memory."""
    groups: list[list[tuple[str, mx.array]]] = []
    room = 0
    for path, leaf in leaves:
        if leaf.size > room:
            groups.append([])
            room = BUCKET_SIZE
        groups[-1].append((path, leaf))
        room -= leaf.size
    return groups


class Watchdog:
    """Looks, from a thread of its own, whether the others answer in time: a collective waits for ever.

    What the ring notices itself (a process that died) is an exception at once; a process that hangs is noticed here.
    `rescue` is called before the process ends, with exit code 75.
    """

    def __init__(self, timeout: float, name: str) -> None:
        self.timeout, self.name = timeout, name
        self.rescue: Callable[[], str] = lambda: ""
        self._since: float | None = None
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def evaluate(self, array: mx.array) -> None:
        """Raises WorkerLostError if another process is gone."""
        self._since = time.monotonic()
        try:
            mx.eval(array)
        except RuntimeError as error:
            raise WorkerLostError(f"{self.name}: another process is gone ({error}){self.rescue()}") from None
        finally:
            self._since = None

    def _look(self) -> None:
        while True:
            time.sleep(TICK)
            since = self._since
            if since is not None and time.monotonic() - since > self.timeout:
                said = f"{self.name}: no answer from the others within {self.timeout:g} s{self.rescue()}"
                print(said, file=sys.__stderr__, flush=True)
                os._exit(WorkerLostError.exit_code)


def init_process_group(parallel: Literal["none", "data", "fsdp"], timeout: float) -> "SingleProcess | DataParallel":
    """The group of this process.

    Raises:
        ConfigError: the processes were started together and `parallel` does not say so, or the backend cannot do it.
    """
    group = mx.distributed.init()
    if parallel == "none":
        if group.size() > 1:
            raise ConfigError(f"trainer.parallel=none: this is one of {group.size()} processes; expected data")
        return SingleProcess()
    if parallel == "fsdp":
        raise ConfigError("trainer.parallel=fsdp: not built: no backend with sum_scatter was there to try it; use data")
    return DataParallel(group, timeout) if group.size() > 1 else SingleProcess()
