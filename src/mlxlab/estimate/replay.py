"""The peak memory of a graph: MLX's order of evaluation, reuse of buffers and lag of the worker thread, replayed.

Follows MLX 0.32 on a CPU (`eval_impl` in transforms.cpp, backend/cpu): operations are queued faster than they run, so
the buffers that an operation reads are freed some operations later.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mlxlab.estimate.graph import Graph, Operation
from mlxlab.estimate.layout import Layout, dense, view

MAX_WIDTH = 20  # of the breadth-first search for the order
TASKS_AHEAD, DISPATCHES_PER_TASK = 10, 10  # of the queue before the worker
DONATION_EXTRA = 16384  # bytes by which a reused buffer may be too large
UNARY = frozenset(
    """Abs ArcCos ArcSin AsType BitwiseInvert Ceil Cos Erf ErfInv Exp Expm1 Floor Log Log1p LogicalNot Negative Round
    Rsqrt Sigmoid Sign Sin Softmax Sqrt Square Tan Tanh""".split()  # noqa: SIM905
)
BINARY = frozenset(
    """Add ArcTan2 BitwiseBinary Divide Equal Greater GreaterEqual Less LessEqual LogAddExp LogicalAnd LogicalOr Maximum
    Minimum Multiply NotEqual Power Remainder Subtract""".split()  # noqa: SIM905
)
PASSING = {"CustomTransforms", "Depends"}  # each output is an input
UPDATES = {"Scatter", "ScatterAxis", "SliceUpdate"}  # a changed copy of the first input


@dataclass(eq=False)
class Buffer:
    nbytes: int
    references: int = 0


@dataclass(eq=False)
class Array:
    """An array of the graph; `references` are operations that still need it, and the caller."""

    itemsize: int
    references: int
    layout: Layout
    buffer: Buffer | None = None


@dataclass(eq=False)
class Replay:
    """Evaluates the outputs of a graph, one call after the other.

    Args:
        held: arrays that the caller keeps; of all others the buffers are reused.
    """

    graph: Graph
    held: Iterable[str] = ()
    active: int = 0
    peak: int = 0
    arrays: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.producers = {name: each for each in self.graph.operations for name in each.outputs}
        uses = Counter(name for each in self.graph.operations for name in each.inputs)
        uses.update(self.held)
        for name, (shape, itemsize) in self.graph.types.items():
            self.arrays[name] = Array(itemsize, uses[name], dense(shape))
        for name in [*self.graph.inputs.values(), *self.graph.constants]:
            self._store(
                self.arrays[name],
                Buffer(self.arrays[name].layout.size * self.arrays[name].itemsize),
            )
        self.peak = self.active
        self.pending: deque[tuple[int, list[Buffer]]] = (
            deque()
        )  # (number of the dispatch, what it holds)
        self.dispatches = 0

    def evaluate(self, outputs: Sequence[str]) -> None:
        """Computes some outputs of the graph and what they need."""
        for operation in reversed(self._order(outputs)):
            self._run(operation)
        while self.pending:
            self._release(self.pending.popleft()[1])

    def _order(self, outputs: Sequence[str]) -> list[Operation]:
        """The operations, last one first."""

        def needed(operation: Operation) -> list[Operation]:
            return [self.producers[name] for name in operation.inputs if self._unscheduled(name)]

        root = Operation("Synchronize", tuple(outputs), (), ())
        degree: Counter[int] = Counter()
        stack, seen = [root], {id(root)}
        while stack:
            for each in needed(stack.pop()):
                degree[id(each)] += 1
                if id(each) not in seen:
                    seen.add(id(each))
                    stack.append(each)
        tape, position, deferred = [root], 0, list[tuple[Operation, int]]()
        while position < len(tape) or deferred:
            if position < len(tape):
                operation, first = tape[position], 0
                position += 1
            else:
                operation, first = deferred.pop()
            inputs = needed(operation)
            for index in range(first, len(inputs)):
                if len(tape) - position >= MAX_WIDTH:
                    deferred.append((operation, index))
                    break
                degree[id(inputs[index])] -= 1
                if not degree[id(inputs[index])]:
                    tape.append(inputs[index])
        return tape[1:]

    def _unscheduled(self, name: str) -> bool:
        return name in self.producers and self.arrays[name].buffer is None

    def _run(self, operation: Operation) -> None:
        sources = [self.arrays[name] for name in operation.inputs]
        outputs = [self.arrays[name] for name in operation.outputs]
        temporary = self._compute(operation, sources, outputs)
        buffers = {
            id(each.buffer): each.buffer
            for each in [*sources, *outputs[1:]]
            if each.buffer is not None
        }
        buffers.pop(id(outputs[0].buffer), None)
        held = [*buffers.values(), *temporary]
        for buffer in held:
            buffer.references += 1
        is_view = outputs[0].buffer in [each.buffer for each in sources] and not temporary
        self.dispatches += 1 if is_view else 2 + len(temporary)
        self.pending.append((self.dispatches, held))
        done = DISPATCHES_PER_TASK * (self.dispatches // DISPATCHES_PER_TASK - TASKS_AHEAD)
        while self.pending and self.pending[0][0] <= done:
            self._release(self.pending.popleft()[1])
        for array in sources:
            array.references -= 1
            self._drop_unused(array)
        for array in outputs:
            self._drop_unused(array)

    def _compute(
        self, operation: Operation, sources: list[Array], outputs: list[Array]
    ) -> list[Buffer]:
        """Stores the outputs; returns the temporary buffers."""
        layouts = [each.layout for each in sources]
        if sources and self._share(operation, sources, outputs):
            return []
        candidates, layout = _reusable(operation, layouts, outputs[0].layout)
        outputs[0].layout = layout
        nbytes = layout.data_size * outputs[0].itemsize
        for index in candidates:
            source = sources[index]
            if self._donatable(source, outputs[0]):
                assert source.buffer is not None
                self._store(outputs[0], source.buffer)
                return []
        for out in outputs:
            self._store(
                out, Buffer(nbytes if out is outputs[0] else out.layout.size * out.itemsize)
            )
        temporary = [
            Buffer(each.layout.size * each.itemsize) for each in _copied(operation, sources)
        ]
        for buffer in temporary:
            self._allocate(buffer)
        return temporary

    def _share(self, operation: Operation, sources: list[Array], outputs: list[Array]) -> bool:
        """Stores the outputs in the buffers of inputs, if they are views of them."""
        for index, out in enumerate(outputs):
            source = sources[_shared_input(operation, index, len(outputs), len(sources))]
            layout = (
                source.layout
                if operation.name in PASSING
                else view(operation, source.layout, out.layout.shape)
            )
            if layout is None:
                return False
            assert source.buffer is not None
            out.layout = layout
            self._store(out, source.buffer)
        return True

    def _donatable(self, source: Array, out: Array) -> bool:
        assert source.buffer is not None
        fits = source.buffer.nbytes <= out.layout.size * out.itemsize + DONATION_EXTRA
        return (
            source.references == 1
            and source.buffer.references == 1
            and source.itemsize == out.itemsize
            and fits
        )

    def _store(self, array: Array, buffer: Buffer) -> None:
        if not buffer.references:
            self._allocate(buffer)
        array.buffer = buffer
        buffer.references += 1

    def _allocate(self, buffer: Buffer) -> None:
        self.active += buffer.nbytes
        self.peak = max(self.peak, self.active)

    def _drop_unused(self, array: Array) -> None:
        if array.references == 0 and array.buffer is not None:
            array.references = -1
            self._release([array.buffer])

    def _release(self, buffers: list[Buffer]) -> None:
        for buffer in buffers:
            buffer.references -= 1
            if not buffer.references:
                self.active -= buffer.nbytes


def _shared_input(operation: Operation, output: int, outputs: int, inputs: int) -> int:
    """The input that an output is: the last ones of a custom function, whose first are its arguments."""
    if operation.name == "CustomTransforms":
        return inputs - outputs + output
    return output if operation.name == "Depends" else 0


def _reusable(operation: Operation, sources: list[Layout], out: Layout) -> tuple[list[int], Layout]:
    """The inputs whose buffer may hold the output, by preference, and the layout of the output."""
    if operation.name in UNARY:
        (source,) = sources[:1]
        return ([0], source) if source.contiguous else ([], out)
    if operation.name in BINARY and len(sources) == 2:
        return _reusable_of_two(sources[0], sources[1], out)
    if operation.name == "Select":
        return _reusable_of_three(sources, out)
    if operation.name in UPDATES:
        return ([0] if sources[0].row_contiguous else []), out
    if operation.name == "Contiguous":
        return [0], out
    return [], out


def _reusable_of_two(a: Layout, b: Layout, out: Layout) -> tuple[list[int], Layout]:
    if a.data_size == b.data_size == 1:
        return [], Layout(out.shape, a.strides, 1)
    if a.data_size == 1 and b.contiguous:
        return [1], b
    if b.data_size == 1 and a.contiguous:
        return [0], a
    if (a.row_contiguous and b.row_contiguous) or (a.column_contiguous and b.column_contiguous):
        return [0, 1], a
    return [
        i for i, each in enumerate((a, b)) if each.row_contiguous and each.size == out.size
    ], out


def _reusable_of_three(sources: list[Layout], out: Layout) -> tuple[list[int], Layout]:
    if all(each.data_size == 1 for each in sources):
        return [], Layout(out.shape, sources[1].strides, 1)
    if all(each.row_contiguous for each in sources) or all(
        each.column_contiguous for each in sources
    ):
        return [0, 1, 2], sources[1]
    return [i for i, each in enumerate(sources) if each.row_contiguous], out


def _copied(operation: Operation, sources: list[Array]) -> list[Array]:
    """The inputs of a product that are first copied: those whose last two axes are not a matrix, transposed or not."""
    if operation.name not in ("Matmul", "AddMM"):
        return []
    return [each for each in sources[:2] if not _is_matrix(each.layout)]


def _is_matrix(layout: Layout) -> bool:
    (rows, columns), (down, right) = layout.shape[-2:], layout.strides[-2:]
    return (down == columns and right == 1) or (down == 1 and right == rows)
