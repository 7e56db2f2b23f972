"""Compiled steps: one trace per combination of shapes, up to a limit, and only where compiling saves time.

On a Linux CPU the first trace takes about 15 s (g++ builds 30 to 40 kernels) and saves a quarter of the time of each
step. `auto` runs uncompiled for as long: the ski-rental rule, at worst twice the time of the better choice. On GPUs
kernels are built quickly, and fused ones round differently, so `auto` compiles from the first step.
"""

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, Literal, TypeVar, cast

import mlx.core as mx
from mlx.utils import tree_flatten

from mlxlab.backend import on_linux_cpu
from mlxlab.ops.dropout import save_random_state
from mlxlab.training.optim.optimizers import assign_leaves, flatten_arrays

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Mode = Literal["auto", "always", "never"]
Shapes = tuple[tuple[object, ...], ...]  # (path, shape, dtype) of every array
MAX_TRACES = 8  # traces are never freed, and the lookup is linear
TRACE_SECONDS = 15.0  # of the first trace on a Linux CPU


class CompileBudget:
    """The seconds for which a run stays uncompiled: none, as many as compiling takes, or infinitely many."""

    def __init__(self, mode: Mode) -> None:
        self.seconds = 0.0
        if mode == "never" or (mode == "auto" and not has_kernel_compiler()):
            self.seconds = math.inf
        elif mode == "auto" and on_linux_cpu():
            self.seconds = TRACE_SECONDS


class CompiledFunction(Generic[Result]):
    """`function`, compiled with the state that it reads and changes.

    Args:
        function: of trees of arrays; only the first argument may change its shapes from call to call.
        state: trees of arrays that it changes in place: of a model, an optimizer, the random number generator.
        budget: nothing is compiled before it is used up, or once MLX has refused to trace.
    """

    def __init__(self, function: Callable[..., Result], state: list[object], budget: CompileBudget) -> None:
        self.function, self.state, self.budget = function, state, budget
        self.compiled: Callable[..., Result] = mx.compile(function, inputs=state, outputs=state)
        self.traces: set[Shapes] = set()
        self._warned = False

    def __call__(self, *arguments: object) -> Result:
        if self.budget.seconds > 0:
            return self.function(*arguments)
        shapes = shapes_of(arguments[0])
        if shapes in self.traces:
            return self.compiled(*arguments)
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
        before, restore_random_state = flatten_arrays(self.state), save_random_state()
        try:
            with private_kernels():
                out = self.compiled(*arguments)
                mx.eval(out, self.state)
        except ValueError as error:
            if "transformation" not in str(error):
                raise
            self.budget.seconds = math.inf
            logger.warning("trainer.step.compile: the loss reads the values of arrays; the step is not compiled")
            assign_leaves(self.state, before)
            restore_random_state()
            return self.function(*arguments)
        self.traces.add(shapes)
        return out


def shapes_of(tree: object) -> Shapes:
    leaves = cast(list[tuple[str, object]], tree_flatten(tree))
    return tuple(
        (path, leaf.shape, leaf.dtype) if isinstance(leaf, mx.array) else (path, leaf) for path, leaf in leaves
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
