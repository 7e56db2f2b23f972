"""Compiled steps: one trace per combination of shapes, up to a limit, and only where compiling saves time.

On a Linux CPU the first trace takes about 15 s (g++ builds 30 to 40 kernels) and saves a quarter of the time of each
step on batches of its shapes; with native kernels it takes 4 s and saves a twentieth. `auto` traces shapes once their
steps have lost as much time uncompiled as a trace takes: the ski-rental rule, which loses at most twice as much as the
better choice. On GPUs kernels are built quickly, and fused ones round differently, so `auto` compiles from the first
step.
"""

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar, cast

import mlx.core as mx
from mlx.utils import tree_flatten

from mlxlab.backend import on_linux_cpu
from mlxlab.backend.ops.dropout import save_random_state
from mlxlab.backend.ops.native import state
from mlxlab.terminal.messages import activity
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.optim.optimizers import assign_leaves, flatten_arrays

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Mode = Literal["auto", "always", "never"]
Shapes = tuple[tuple[object, ...], ...]  # (path, shape, dtype) of every array
MAX_TRACES = 8  # traces are never freed, and the lookup is linear
# Seconds of the first trace, and the share of a step's time that compiling saves, both on a Linux CPU.
MLX_TRACE = (15.0, 0.25)
NATIVE_TRACE = (4.0, 0.05)  # native kernels leave less to build, and less to fuse


class CompileBudget:
    """Whether it pays to trace batches of some shapes, in one run.

    Attributes:
        trace_seconds: what a trace costs: nothing where it is not waited for, and infinitely much if it is not wanted.
        saved: the share of a step's time that it saves.
    """

    def __init__(self, mode: Mode, group: ProcessGroup) -> None:
        self.trace_seconds = 0.0
        self.saved = 0.0
        self.group = group
        if mode == "never" or (mode == "auto" and not has_kernel_compiler()):
            self.trace_seconds = math.inf
        elif mode == "auto" and on_linux_cpu():
            self.trace_seconds, self.saved = NATIVE_TRACE if state.is_active() else MLX_TRACE
        self._uncompiled: dict[Hashable, float] = {}  # seconds by function and shapes
        self._running: Hashable = None

    def pays(self, trace: Hashable) -> bool:
        """Whether to make this trace, of a function and shapes, now; if not, the time of the call counts for it."""
        if (
            self.trace_seconds == 0
            or self.saved * self._uncompiled.get(trace, 0.0) >= self.trace_seconds
        ):
            return True
        self._running = trace
        return False

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Inside, one compiled function is called and its result evaluated; a trace is not counted."""
        self._running = None
        start = time.monotonic()
        yield
        seconds = self.group.longest(time.monotonic() - start)
        if self._running is not None:
            self._uncompiled[self._running] = self._uncompiled.get(self._running, 0.0) + seconds

    def add_trace(self, seconds: float) -> None:
        """What a trace took: the next ones use its kernels, and will take about as long or less."""
        if not self.group.shards_weights:  # where all ranks must decide alike
            self.trace_seconds = min(self.trace_seconds, seconds)


@dataclass
class CompiledFunction(Generic[Result]):
    """`function`, compiled with the state that it reads and changes.

    Args:
        function: of trees of arrays; only the first argument may change its shapes from call to call.
        arrays: trees of those that it changes in place: of a model, an optimizer, the random number generator.
        budget: decides which shapes are traced; none, once MLX has refused to trace.
    """

    function: Callable[..., Result]
    arrays: list[object]
    budget: CompileBudget

    def __post_init__(self) -> None:
        self.compiled = mx.compile(self.function, inputs=self.arrays, outputs=self.arrays)
        self.traces: set[Shapes] = set()
        self._warned = False

    def __call__(self, *arguments: object) -> Result:
        shapes = shapes_of(arguments[0])
        if shapes in self.traces:
            return self.compiled(*arguments)
        if not self.budget.pays((id(self), shapes)):
            return self.function(*arguments)
        if len(self.traces) < MAX_TRACES:
            return self._trace(shapes, arguments)
        if not self._warned:
            self._warned = True
            logger.warning(
                f"trainer.step.compile: reached the maximum of {MAX_TRACES} traces; batches of shape {shapes[0][1]} and"
                " of other new shapes run uncompiled; choose data.batching so that there are fewer lengths"
            )
        return self.function(*arguments)

    def _trace(self, shapes: Shapes, arguments: tuple[object, ...]) -> Result:
        before = flatten_arrays(self.arrays)
        restore_random_state = save_random_state()
        start = time.monotonic()
        try:
            title = f"compiling the step for batches of {shapes[0][1]}"
            if self.traces:
                title += f", variant {len(self.traces) + 1}"
            with private_kernels(), activity(title):
                out = self.compiled(*arguments)
                mx.eval(out, self.arrays)
        except ValueError as error:
            if "transformation" not in str(error):
                raise
            self.budget.trace_seconds = math.inf
            logger.warning(
                "trainer.step.compile: the loss reads the values of arrays; the step is not compiled"
            )
            assign_leaves(self.arrays, before)
            restore_random_state()
            return self.function(*arguments)
        self.traces.add(shapes)
        self.budget.add_trace(time.monotonic() - start)
        return out


def shapes_of(tree: object) -> Shapes:
    leaves = cast(list[tuple[str, object]], tree_flatten(tree))
    return tuple(
        (path, leaf.shape, leaf.dtype) if isinstance(leaf, mx.array) else (path, leaf)
        for path, leaf in leaves
    )


def has_kernel_compiler() -> bool:
    """True if MLX can compile kernels on this machine; on a CPU it needs g++."""
    if os.environ.get("MLX_DISABLE_COMPILE"):
        return False
    return mx.default_device() != mx.Device(mx.cpu) or shutil.which("g++") is not None


@contextmanager
def private_kernels() -> Iterator[None]:
    """Inside, MLX builds its CPU kernels in the user's cache folder: in the shared one others could plant a library."""
    before = os.environ.get("TMPDIR")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlxlab"
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if on_linux_cpu() and folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK):
            os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("TMPDIR", None)
        if before is not None:
            os.environ["TMPDIR"] = before
