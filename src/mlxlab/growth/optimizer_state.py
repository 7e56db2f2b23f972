"""The optimizer state of a grown model: statistics by the map of the weights, counters by their path."""

from collections.abc import Container
from typing import NamedTuple

import mlx.core as mx

from mlxlab.growth.arrays import Arrays, Sources, gather_moment

Shapes = dict[str, tuple[int, ...]]  # by path
AVERAGE = "average."  # of the weights, which grows as they do


class TransferCounts(NamedTuple):
    """Parameters by what became of their optimizer state: carried over, new, or dropped with the parameter."""

    carried: int
    fresh: int
    dropped: int

    def __str__(self) -> str:
        return f"{self.carried} carried, {self.fresh} fresh, {self.dropped} dropped"


class Leaf(NamedTuple):
    """An array of the optimizer state, as that of a parameter; "" for counters and other arrays of no parameter."""

    parameter: str
    name: str


def transfer_state(
    old: Arrays, new: Arrays, sources: Sources, before: Shapes, after: Shapes, average: Arrays
) -> tuple[Arrays, TransferCounts]:
    """The leaves of the state `new`, which is that before the first step, with all that `old` knows of them.

    Args:
        sources: of the new parameters, by path.
        before, after: the shapes of the old and the new parameters.
        average: the grown average of the weights, by parameter.
    """
    old_leaves = {parse_leaf(path, before): array for path, array in old.items()}
    new_leaves = {path: parse_leaf(path, after) for path in new}
    by_parameter = _names_by_parameter(old_leaves)
    result: Arrays = {}
    carried, fresh, used = set(), set(), set()
    for path, leaf in new_leaves.items():
        source = sources.get(leaf.parameter)
        if not leaf.parameter:
            result[path] = old.get(path, new[path])
        elif leaf.name.startswith(AVERAGE):
            result[path] = average[leaf.parameter]
        elif source is not None and (moment := old_leaves.get(Leaf(source.path, leaf.name))) is not None:
            power = 2 if is_second_moment(leaf.name, by_parameter[source.path]) else 1
            result[path] = gather_moment(moment, axes_of(leaf.name, len(before[source.path])), source, power)
            carried.add(leaf.parameter)
            used.add(source.path)
        else:
            result[path] = new[path]
            fresh.add(leaf.parameter)
    dropped = {parameter for parameter, names in by_parameter.items() if names} - used - {""}
    return result, TransferCounts(len(carried), len(fresh - carried), len(dropped))


def parse_leaf(path: str, parameters: Container[str]) -> Leaf:
    """The parameter of an array of the state: `states.0.<path>.m` is of `<path>`, and so is `average.<path>`."""
    keys = path.split(".")
    for start in range(len(keys)):
        for end in (len(keys), len(keys) - 1):
            parameter = ".".join(keys[start:end])
            if parameter in parameters:
                is_average = keys[:start] == ["average"]
                return Leaf(parameter, AVERAGE if is_average else ".".join(keys[end:]))
    return Leaf("", path)


def is_second_moment(name: str, names: set[str]) -> bool:
    """True for means of squared gradients: `v` next to `m` (Adam), not alone (momentum), and those of Adafactor."""
    return "_sq" in name or (name == "v" and "m" in names)


def axes_of(name: str, count: int) -> list[int]:
    """The axes of a statistic of an array with `count` axes: Adafactor's means of rows and columns lack one."""
    missing = {"exp_avg_sq_row": count - 1, "exp_avg_sq_col": count - 2}.get(name)
    return [axis for axis in range(count) if axis != missing]


def _names_by_parameter(leaves: dict[Leaf, mx.array]) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for leaf in leaves:
        if leaf.name != AVERAGE:
            names.setdefault(leaf.parameter, set()).add(leaf.name)
    return names
