"""Process groups: several processes take one optimizer step together (data parallel, with whole weights or shards).

All ranks draw the same global batches, and each computes its rows. Losses and gradients are summed over all ranks and
divided once by the total weight: neither the order of the data nor the sums depend on the number of processes.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Literal, TypeVar, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlxlab.backend import is_out_of_memory, on_linux_cpu
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError, WorkerLostError
from mlxlab.training.distributed.launch_env import check_parallel, launched_processes

BUCKET_SIZE = 1 << 20  # numbers sent in one message: 4 MB of float32
Leaves = list[tuple[str, mx.array]]
T = TypeVar("T")
PerExample = dict[str, mx.array]  # name -> (R,): a number for each row
MAX_TEXT_BYTES = 4096
POLL_SECONDS = 0.25


@cache
def communication_stream() -> mx.Stream:
    """A stream next to that of the computations; NCCL sums in that of the GPU."""
    if mx.cuda.is_available():
        return mx.default_stream(mx.default_device())
    return mx.new_stream(mx.cpu)


def bucket_leaves(leaves: Leaves) -> list[Leaves]:
    """Groups leaves into buckets of at most BUCKET_SIZE numbers (or one larger leaf): few messages, little memory."""
    buckets: list[Leaves] = []
    free = 0
    for path, leaf in leaves:
        if leaf.size > free:
            buckets.append([])
            free = BUCKET_SIZE
        buckets[-1].append((path, leaf))
        free -= leaf.size
    return buckets


class ProcessGroup:
    """The processes that take an optimizer step together; by default this one alone, which communicates nothing.

    They are connected by MLX's collectives, as `mlx.launch` started them, and must call them in the same order. If a
    rank exits, the ring raises an error at once; one that hangs is noticed by a thread here. In both cases the function
    of `on_worker_lost` is called before this process ends with exit code 75.

    Args:
        timeout: seconds that a rank waits for the others before it gives up.
        shards_weights: each process holds a shard of every weight, and gathers it inside of its computations.
    """

    def __init__(
        self,
        group: mx.distributed.Group | None = None,
        timeout: float = 0.0,
        *,
        shards_weights: bool = False,
    ) -> None:
        self.group = group
        self.timeout = timeout
        self.rank = 0
        self.size = 1
        if group is not None:
            self.rank = group.rank()
            self.size = group.size()
        self.shards_weights = shards_weights and self.size > 1
        # What a step needs in addition to weights and optimizer state, without activations.
        self.working_bytes = 0
        self._global_rows = 0  # rows of the last batch
        self._waiting_since: float | None = None
        self._save_on_loss: Callable[[], str] = lambda: ""
        if self.size > 1:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def shard(self, batch: Batch) -> Batch:
        """The rows of a global batch for this rank: rank, rank + size, ...; where it has fewer, rows of weight 0.

        All ranks have the same number of rows, and so of micro-batches.
        """
        if self.size == 1:
            return batch
        self._global_rows = len(batch.example_ids)
        rows = np.arange(self.rank, self._global_rows + self.rank, self.size)
        shard: Batch = tree_map(
            lambda array: array[np.where(rows < self._global_rows, rows, 0)], batch
        )
        is_real = (rows < self._global_rows).reshape(-1, *[1] * (batch.loss_weights.ndim - 1))
        return shard._replace(loss_weights=np.where(is_real, shard.loss_weights, np.float32(0)))

    def all_reduce_sum(self, tree: T, per_example: PerExample) -> tuple[T, PerExample]:
        """Sums of a tree of float32 arrays over all ranks; and numbers by row, of the shard (R,) -> the batch (B,)."""
        if self.size == 1:
            return tree, per_example
        indices = mx.arange(self.rank, self._global_rows, self.size)
        scattered = {name: mx.zeros(self._global_rows) for name in per_example}
        if indices.size:
            for name, sums in per_example.items():
                scattered[name] = scattered[name].at[indices].add(sums[: indices.size])
        leaves = cast(
            list[tuple[str, mx.array]], tree_flatten({"tree": tree, "per_example": scattered})
        )
        leaves.reverse()  # a backward pass ends with the first layer
        with self.lockstep(waits=False):
            summed = self._sum_in_buckets(leaves)
        result = tree_unflatten(summed)
        return result["tree"], result["per_example"]

    def norm_over_shards(self, norm: mx.array) -> mx.array:
        """The norm of all gradients, from that of the shards of this rank; lazy, to be evaluated in `lockstep`."""
        if not self.shards_weights:
            return norm
        return mx.sqrt(mx.distributed.all_sum(norm * norm, group=self.group))

    def longest(self, seconds: float) -> float:
        """The time of the slowest rank, where they must decide alike; else that of this one."""
        if not self.shards_weights:
            return seconds
        return self.all_reduce_max([round(1e6 * seconds)])[0] / 1e6

    def all_gather(self, shard: mx.array) -> mx.array:
        """The arrays of all ranks, concatenated along the first axis; lazy, as above."""
        return mx.distributed.all_gather(shard, group=self.group)

    def sum_scatter(self, rows: mx.array) -> mx.array:
        """Row `rank` of the sum over all ranks: (size, n) -> (1, n); lazy, as above."""
        if self._has_sum_scatter:
            return mx.distributed.sum_scatter(rows, group=self.group)
        # Contiguous: a slice would keep the whole sum in memory.
        return mx.contiguous(
            mx.distributed.all_sum(rows, group=self.group)[self.rank : self.rank + 1]
        )

    @cached_property
    def _has_sum_scatter(self) -> bool:
        """Not on a ring, which refuses it when it is evaluated."""
        try:
            with self.lockstep():
                mx.eval(mx.distributed.sum_scatter(mx.zeros((self.size, 1)), group=self.group))
        except WorkerLostError as error:
            if "not supported" not in str(error):
                raise
            return False
        return True

    @contextmanager
    def lockstep(self, *, waits: bool = True) -> Iterator[None]:
        """Inside, evaluations communicate: the time of computations counts towards the timeout too, if it `waits`.

        Raises:
            WorkerLostError: another process exited.
        """
        before = self._waiting_since
        if waits and self.size > 1:
            self._waiting_since = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or is_out_of_memory(error):
                raise
            message = f"process {self.rank} of {self.size}: another process exited ({error}){self._save_on_loss()}"
            raise WorkerLostError(message) from None
        finally:
            self._waiting_since = None if before is None else time.monotonic()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Around computations of the model: in `lockstep` if it gathers weights, and with few operations in flight.

        MLX allocates results when it dispatches an operation, on a CPU long before their inputs can be freed.
        """
        if not self.shards_weights:
            yield
            return
        limit = None
        if on_linux_cpu():
            limit = mx.set_memory_limit(mx.get_active_memory() + self.working_bytes)
        try:
            with self.lockstep():
                yield
        finally:
            if limit is not None:
                mx.set_memory_limit(limit)

    def all_reduce_max(self, numbers: Sequence[int]) -> list[int]:
        """Element-wise maximum over all ranks."""
        if self.size == 1:
            return list(numbers)
        array = mx.array(list(numbers), dtype=mx.int32)
        largest = mx.distributed.all_max(array, group=self.group)
        self._wait(array, largest)
        return largest.tolist()  # type: ignore[return-value]

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

    def _sum_in_buckets(self, leaves: Leaves) -> Leaves:
        """The float32 sum of each leaf over all processes, in messages sent while the next leaves are computed.

        One message at a time: a ring never ends those that are started after it has lost a process.
        """
        sums: Leaves = []
        flat = summed = mx.array(0.0)
        for bucket in bucket_leaves(leaves):
            offsets = np.cumsum([leaf.size for _, leaf in bucket])[:-1].tolist()
            with mx.stream(communication_stream()):
                before = flat
                flat = mx.concatenate([leaf.astype(mx.float32).reshape(-1) for _, leaf in bucket])
                mx.async_eval(flat)
                self._wait(before, summed)
                summed = mx.distributed.all_sum(flat, group=self.group)
                mx.async_eval(summed)
                arrays = mx.split(summed, offsets)
            for (path, leaf), array in zip(bucket, arrays, strict=True):
                sums.append((path, array.reshape(leaf.shape)))
        self._wait(flat, summed)
        return sums

    def _wait(self, own: mx.array, summed: mx.array) -> None:
        mx.eval(own)  # the work of this rank does not count towards the timeout of the others
        with self.lockstep():
            mx.eval(summed)

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self.timeout:
                name = f"process {self.rank} of {self.size}"
                message = f"{name}: no answer from the other processes within {self.timeout:g} s"
                print(message + self._save_on_loss(), file=sys.__stderr__, flush=True)
                os._exit(WorkerLostError.exit_code)


def init_process_group(parallel: Literal["none", "data", "fsdp"], timeout: float) -> ProcessGroup:
    """The group of this process; raises ConfigError if `parallel` does not fit the launch, or for a bad host file."""
    path = os.environ.get("MLX_HOSTFILE")
    try:
        if path and not os.path.isfile(path):  # MLX would wait for the writer of a pipe
            raise ValueError("not a regular file")
        group = mx.distributed.init()
    except (RuntimeError, ValueError) as error:
        fault = "MLX cannot start a group"
        if path:
            fault = f"MLX_HOSTFILE={path}: expected the host file of a launcher"
        raise ConfigError(f"{fault} ({str(error).splitlines()[0]})") from None
    if parallel == "none" and group.size() > 1:
        raise ConfigError(
            f"trainer.parallel=none: expected data or fsdp, this is one of {group.size()} processes"
        )
    if parallel != "none":
        check_parallel(parallel)
        if group.size() == 1 < launched_processes():  # each of them would train alone
            raise ConfigError(
                f"trainer.parallel={parallel}: MLX did not connect the {launched_processes()} processes that were "
                "started; expected a backend of `launch` that this machine has (ring has no requirements)"
            )
    processes = ProcessGroup(group, timeout, shards_weights=parallel == "fsdp")
    atexit.register(
        setattr, processes, "group", None
    )  # MLX finalizes MPI once nothing holds the group
    return processes
