"""Process groups: several processes take one optimizer step together (data parallel).

All ranks draw the same global batches, and each computes its rows. Losses and gradients are summed over all ranks and
divided once by the total weight: neither the order of the data nor the sums depend on the number of processes.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlxlab.data.batch import Batch
from mlxlab.distributed.launch_env import check_parallel
from mlxlab.errors import ConfigError, WorkerLostError

T = TypeVar("T")
PerExample = dict[str, mx.array]  # name -> (R,): a number for each row
BUCKET_SIZE = 1 << 23  # numbers sent in one message: 32 MB of float32
MAX_TEXT_BYTES = 4096
POLL_SECONDS = 0.25


class ProcessGroup:
    """The processes that take an optimizer step together; by default this one alone, which communicates nothing.

    They are connected by MLX's collectives, as `mlx.launch` started them, and must call them in the same order. If a
    rank exits, the ring raises an error at once; one that hangs is noticed by a thread here. In both cases the function
    of `on_worker_lost` is called before this process ends with exit code 75.

    Args:
        timeout: seconds that a rank waits for the others before it gives up.
    """

    def __init__(self, group: mx.distributed.Group | None = None, timeout: float = 0.0) -> None:
        self.group, self.timeout = group, timeout
        self.rank, self.size = (group.rank(), group.size()) if group else (0, 1)
        self._global_rows = 0  # of the last batch
        self._waiting_since: float | None = None
        self._save_on_loss: Callable[[], str] = lambda: ""
        if self.size > 1:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def shard(self, batch: Batch) -> Batch:
        """The rows of a global batch for this rank: rank, rank + size, ...; if it has none, one row of weight 0."""
        if self.size == 1:
            return batch
        self._global_rows = len(batch.example_ids)
        if self.rank < self._global_rows:
            return tree_map(lambda array: array[self.rank :: self.size], batch)
        first: Batch = tree_map(lambda array: array[:1], batch)
        return first._replace(loss_weights=np.zeros_like(first.loss_weights))

    def all_reduce_sum(self, tree: T, per_example: PerExample) -> tuple[T, PerExample]:
        """Sums of a tree of float32 arrays over all ranks; and numbers by row, of the shard (R,) -> the batch (B,)."""
        if self.size == 1:
            return tree, per_example
        indices = mx.arange(self.rank, self._global_rows, self.size)
        scattered = {name: mx.zeros(self._global_rows) for name in per_example}
        if indices.size:
            scattered = {name: zeros.at[indices].add(per_example[name]) for name, zeros in scattered.items()}
        leaves = cast(list[tuple[str, mx.array]], tree_flatten({"tree": tree, "per_example": scattered}))
        summed: list[tuple[str, mx.array]] = []
        for bucket in bucket_leaves(leaves):
            flat = mx.concatenate([leaf.astype(mx.float32).reshape(-1) for _, leaf in bucket])
            offsets = np.cumsum([leaf.size for _, leaf in bucket])[:-1].tolist()
            arrays = mx.split(self._collective(mx.distributed.all_sum, flat), offsets)
            summed += [(path, array.reshape(leaf.shape)) for (path, leaf), array in zip(bucket, arrays, strict=True)]
        result = tree_unflatten(summed)
        return result["tree"], result["per_example"]

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """Element-wise maximum over all ranks."""
        if self.size == 1:
            return list(numbers)
        array = mx.array(list(numbers), dtype=mx.int32)
        return self._collective(mx.distributed.all_max, array).tolist()  # type: ignore[return-value]

    def rank_zero_first(self, act: Callable[[], T]) -> T:
        """Calls `act` on rank 0, then on all other ranks."""
        if self.rank > 0:
            self.barrier()
        result = act()
        if self.rank == 0:
            self.barrier()
        return result

    def barrier(self) -> None:
        """Returns once all ranks have called it."""
        self.all_reduce_max([0])

    def on_worker_lost(self, save: Callable[[], str]) -> None:
        """Registers what to do when another process is lost; `save` returns the end of the message."""
        self._save_on_loss = save

    def broadcast_text(self, text: str) -> str:
        """The text of rank 0, at most 4,096 bytes of UTF-8."""
        data = np.zeros(MAX_TEXT_BYTES, np.int32)
        if self.rank == 0:
            encoded = np.frombuffer(text.encode(), np.uint8)
            data[: len(encoded)] = encoded
        received = np.array(self.all_reduce_max(data.tolist()), np.uint8)
        return received[received > 0].tobytes().decode()

    def _collective(self, operation: Callable[..., mx.array], array: mx.array) -> mx.array:
        mx.eval(array)  # the work of this rank does not count towards the timeout of the others
        result = operation(array, group=self.group)
        self._waiting_since = time.monotonic()
        try:
            mx.eval(result)
        except RuntimeError as error:
            message = f"process {self.rank} of {self.size}: another process exited ({error}){self._save_on_loss()}"
            raise WorkerLostError(message) from None
        finally:
            self._waiting_since = None
        return result

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self.timeout:
                name = f"process {self.rank} of {self.size}"
                message = f"{name}: no answer from the other processes within {self.timeout:g} s"
                print(message + self._save_on_loss(), file=sys.__stderr__, flush=True)
                os._exit(WorkerLostError.exit_code)


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


def init_process_group(parallel: Literal["none", "data", "fsdp"], timeout: float) -> ProcessGroup:
    """The group of this process; raises ConfigError if `parallel` does not fit the launch, or for a bad host file."""
    path = os.environ.get("MLX_HOSTFILE")
    try:
        if path and not os.path.isfile(path):  # MLX would wait for the writer of a pipe
            raise ValueError("not a regular file")
        group = mx.distributed.init()
    except (RuntimeError, ValueError) as error:
        fault = f"MLX_HOSTFILE={path}: expected the host file of a launcher" if path else "MLX cannot start a group"
        raise ConfigError(f"{fault} ({str(error).splitlines()[0]})") from None
    if parallel == "none" and group.size() > 1:
        raise ConfigError(f"trainer.parallel=none: expected data, this is one of {group.size()} processes")
    if parallel != "none":
        check_parallel(parallel)
    return ProcessGroup(group, timeout)
