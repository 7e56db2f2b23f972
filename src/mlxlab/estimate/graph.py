"""The graph of a function of arrays: its operations and the shapes between them, without computing any."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import mlx.core as mx

from mlxlab.ops.custom_gradient import DISTINCT, Forward, Gradient, distinct, recorded_by
from mlxlab.ops.dropout import random_key, save_random_state
from mlxlab.ops.exp import Arrays

Shape = tuple[int, ...]


class ArrayType(NamedTuple):
    """Shape and bytes per number of an array."""

    shape: Shape
    itemsize: int


@dataclass(frozen=True)
class Operation:
    """An operation on arrays, which are named."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arguments: tuple[Any, ...] = ()  # as MLX exports them: axes, strides, ...


@dataclass
class Graph:
    """What a function computes. Arrays have names of the graph.

    Attributes:
        inputs: the arrays that the function gets, by their own names.
        outputs: those that it returns, in order.
        constants: scalars with their values.
    """

    types: dict[str, ArrayType] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    constants: dict[str, float] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)


def trace(
    function: Callable[[dict[str, mx.array]], Sequence[mx.array]], inputs: Mapping[str, mx.array]
) -> Graph:
    """The graph of `function`, whose inputs need not be evaluated: none of them is."""
    graph, records = Graph(), _Records()

    def read(entry: dict[str, Any]) -> None:
        kind = entry["type"]
        if kind == "keyword_inputs":
            graph.inputs.update(entry["keywords"])
        elif kind == "outputs":
            graph.outputs.extend(name for name, _, _ in entry["outputs"])
        elif kind == "constants":
            for name, array in entry["constants"]:
                graph.constants[name] = float(array.item()) if array.size == 1 else 0.0
                graph.types[name] = ArrayType(tuple(array.shape), array.dtype.size)
        elif kind == "primitive":
            inputs, outputs = (
                tuple(name for name, _, _ in entry[side]) for side in ("inputs", "outputs")
            )
            graph.operations.append(
                Operation(entry["name"], inputs, outputs, tuple(entry["arguments"]))
            )
        if kind != "constants":
            arrays = [*entry.get("inputs", []), *entry.get("outputs", [])]
            graph.types.update(
                {name: ArrayType(tuple(shape), dtype.size) for name, shape, dtype in arrays}
            )

    def call(**arrays: mx.array) -> list[mx.array]:
        with recorded_by(records.record):
            returned = list(function(arrays))
        return [*returned, *records.arrays]

    mx.eval(random_key())  # otherwise all draws since the last evaluation are part of the graph
    restore_random_state = save_random_state()
    try:
        mx.export_function(read, call, dict(inputs))
    finally:
        restore_random_state()
    return records.put_into(graph)


class _Record(NamedTuple):
    """A function with its own gradient; numbers count the arrays recorded.

    Attributes:
        seen: the outputs as the gradient gets them.
        marks: constants, of the value and of each input, that mark their operations in the graph.
    """

    inputs: list[int]
    outputs: list[int]
    seen: list[int]
    gradients: list[int]
    value: int
    cotangent: int
    marks: list[float]


class _Records:
    """Functions with their own gradient, of which MLX exports nothing.

    In place of its value, each leaves a sum of all its inputs, times a constant for each of them and one for the
    value. The gradient of MLX then has a product with each of these constants: that of the value with its cotangent,
    which goes in, those of the inputs with what must come out. All other arrays are known, as extra outputs.
    """

    def __init__(self) -> None:
        self.arrays: list[mx.array] = []
        self.records: list[_Record] = []
        self.last_mark = 1e4

    def record(self, forward: Forward, gradient: Gradient, inputs: Arrays) -> mx.array:
        outputs = forward(*inputs)
        value, mark = mx.zeros(outputs[0].shape), [self._mark()]
        for array in inputs:
            mark.append(self._mark())
            term = (array.astype(mx.float32) * mark[-1]).sum()
            value = value + term
        value = value * mark[0]
        cotangent = mx.full(value.shape, self._mark())
        seen = distinct(outputs)
        gradients = gradient(distinct(inputs), cotangent, seen)
        groups = [self._keep(group) for group in (inputs, outputs, seen, gradients)]
        [value_index], [cotangent_index] = self._keep([value]), self._keep([cotangent])
        self.records.append(
            _Record(groups[0], groups[1], groups[2], groups[3], value_index, cotangent_index, mark)
        )
        return value.astype(outputs[0].dtype)

    def _mark(self) -> float:
        self.last_mark += 1.0
        return self.last_mark

    def _keep(self, arrays: Sequence[mx.array]) -> list[int]:
        self.arrays += arrays
        return list(range(len(self.arrays) - len(arrays), len(self.arrays)))

    def put_into(self, graph: Graph) -> Graph:
        """The graph with these functions as MLX would evaluate them."""
        count = len(graph.outputs) - len(self.arrays)
        names, graph.outputs = graph.outputs[count:], graph.outputs[:count]
        products = _marked_products(graph)
        aliases: dict[str, str] = {}
        for each in self.records:
            value = names[each.value]
            inputs = [names[index] for index in each.inputs]
            cotangent = next(
                (x for x, out in products.get(each.marks[0], []) if out != value), None
            )
            if cotangent is not None:
                aliases[names[each.cotangent]] = cotangent
            for index, mark in zip(each.gradients, each.marks[1:], strict=True):
                for _, out in products.get(mark, [])[1:]:  # the first one is that of the value
                    aliases[out] = names[index]
            graph.operations = [op for op in graph.operations if value not in op.outputs]
            outputs = [names[index] for index in each.outputs]
            stopped, returned = ([f"{name}{mark}" for name in outputs] for mark in "'\"")
            returned[0] = value
            for own in (stopped, returned):
                graph.types.update(zip(own, (graph.types[name] for name in outputs), strict=True))
            graph.operations += [
                Operation("StopGradient", (a,), (b,)) for a, b in zip(outputs, stopped, strict=True)
            ]
            graph.operations.append(
                Operation("CustomTransforms", (*inputs, *stopped), tuple(returned))
            )
            aliases.update(zip((names[index] for index in each.seen), returned, strict=True))
        return _used(graph, _distinct_copies(graph) | aliases)


def _marked_products(graph: Graph) -> dict[float, list[tuple[str, str]]]:
    """(other factor, product) of the products with each constant, in the order of the graph."""
    values = dict(graph.constants)
    products: dict[float, list[tuple[str, str]]] = {}
    for operation in graph.operations:
        if (
            operation.name in ("Broadcast", "AsType", "BroadcastAxes")
            and operation.inputs[0] in values
        ):
            values[operation.outputs[0]] = values[operation.inputs[0]]
        elif operation.name == "Multiply":
            for i, name in enumerate(operation.inputs):
                if name in values:
                    products.setdefault(values[name], []).append(
                        (operation.inputs[1 - i], operation.outputs[0])
                    )
    return products


def _distinct_copies(graph: Graph) -> dict[str, str]:
    """What `distinct` made, and of what."""
    copies: dict[str, str] = {}
    for operation in graph.operations:
        if operation.name == "Depends" and graph.constants.get(operation.inputs[-1]) == DISTINCT:
            copies.update(zip(operation.outputs, operation.inputs, strict=False))
    return copies


def _used(graph: Graph, aliases: Mapping[str, str]) -> Graph:
    """The graph with each alias replaced, without the operations that no output needs."""

    def resolve(name: str) -> str:
        while name in aliases:
            name = aliases[name]
        return name

    operations = [
        Operation(each.name, tuple(map(resolve, each.inputs)), each.outputs, each.arguments)
        for each in graph.operations
        if not any(name in aliases for name in each.outputs)
    ]
    graph.outputs = [resolve(name) for name in graph.outputs]
    producers = {name: each for each in operations for name in each.outputs}
    needed, stack = set[int](), [producers[name] for name in graph.outputs if name in producers]
    while stack:
        operation = stack.pop()
        if id(operation) not in needed:
            needed.add(id(operation))
            stack += [producers[name] for name in operation.inputs if name in producers]
    graph.operations = [each for each in operations if id(each) in needed]
    return graph
