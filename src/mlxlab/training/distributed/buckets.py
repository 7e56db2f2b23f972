"""Sums of many arrays over all processes, in a few messages that are sent while the next arrays are computed."""

from collections.abc import Callable
from functools import cache

import mlx.core as mx
import numpy as np

BUCKET_SIZE = 1 << 20  # numbers sent in one message: 4 MB of float32
Leaves = list[tuple[str, mx.array]]


def sum_in_buckets(
    leaves: Leaves, group: mx.distributed.Group | None, wait: Callable[[mx.array, mx.array], None]
) -> Leaves:
    """The float32 sum of each leaf over all processes. Leaves are computed in their order.

    One message at a time: a ring never ends those that are started after it has lost a process.

    Args:
        wait: waits for an array of this process, then for its sum.
    """
    sums: Leaves = []
    flat = summed = mx.array(0.0)
    for bucket in bucket_leaves(leaves):
        offsets = np.cumsum([leaf.size for _, leaf in bucket])[:-1].tolist()
        with mx.stream(communication_stream()):
            before = flat
            flat = mx.concatenate([leaf.astype(mx.float32).reshape(-1) for _, leaf in bucket])
            mx.async_eval(flat)
            wait(before, summed)
            summed = mx.distributed.all_sum(flat, group=group)
            mx.async_eval(summed)
            arrays = mx.split(summed, offsets)
        sums += [
            (path, array.reshape(leaf.shape))
            for (path, leaf), array in zip(bucket, arrays, strict=True)
        ]
    wait(flat, summed)
    return sums


@cache
def communication_stream() -> mx.Stream:
    """A stream next to that of the computations; NCCL sums in that of the GPU."""
    return (
        mx.default_stream(mx.default_device()) if mx.cuda.is_available() else mx.new_stream(mx.cpu)
    )


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
