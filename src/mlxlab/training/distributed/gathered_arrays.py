"""The whole arrays of shards, one at a time, for what reads all of them: a checkpoint, a digest."""

from collections.abc import Iterator, Mapping

import mlx.core as mx

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.training.distributed.process_group import ProcessGroup


class GatheredArrays(Mapping[str, mx.array]):
    """Arrays by path, gathered when they are read: all ranks read them once, in the order of the mapping.

    Args:
        arrays: shards, and whole arrays.
        shapes: of the whole arrays of all shards.
    """

    def __init__(
        self, group: ProcessGroup, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.group = group
        self.arrays = arrays
        self.shapes = shapes
        self.unread = sorted(arrays)

    @property
    def kinds(self) -> dict[str, tuple[tuple[int, ...], mx.Dtype]]:
        """(shape, dtype) of every whole array, in the order in which they are read."""
        return {
            path: (self.shapes.get(path, self.arrays[path].shape), self.arrays[path].dtype)
            for path in self
        }

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.arrays))

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, path: str) -> mx.array:
        assert self.unread[:1] == [path], f"{path} read out of order"
        self.unread.pop(0)
        array = self.arrays[path]
        shape = self.shapes.get(path)
        if shape is None:
            return array
        with self.group.lockstep():
            whole = self.group.all_gather(array)[: shape[0]]
            mx.eval(whole)
        return whole

    def finish(self) -> None:
        """Takes part in gathering the arrays that this process does not read."""
        while self.unread:
            self[self.unread[0]]
