"""Compiled steps: one trace per shape, at most a few of them, and none where they would not pay.

On Linux CPU a trace costs some 15 s the first time (g++ builds 30 to 40 kernels, kept in the user's cache folder) and
gains a quarter of the time of each step. `auto` therefore goes on uncompiled until that has taken as long as compiling
would: at worst a run takes twice the time that hindsight would have given it. Both ways give the same numbers there. On
GPUs, where kernels are built quickly and round otherwise when they are fused, `auto` compiles from the first step on.
"""

import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
from mlx.utils import tree_flatten

Mode = Literal["auto", "always", "never"]
MOST_TRACES = 8  # a trace is kept for ever, and looked for one by one
COST = 15.0  # seconds that a first trace takes on Linux CPU


class CompileBudget:
    """How long a run goes on uncompiled: for nothing, for as long as compiling takes, or to its end."""

    def __init__(self, mode: Mode) -> None:
        self.seconds = 0.0
        if mode == "never" or (mode == "auto" and not has_kernel_compiler()):
            self.seconds = math.inf
        elif mode == "auto" and on_linux_cpu():
            self.seconds = COST

    def spend(self, seconds: float) -> None:
        self.seconds -= seconds


class CompiledFunction:
    """`function`, compiled with the state that it reads and changes.

    Args:
        function: of trees of arrays.
        state: trees of arrays that it changes in place: of a model, an optimizer, the random numbers.
        patience: while there is some left, nothing is compiled.
    """

    def __init__(self, function: Callable[..., Any], state: list[Any], patience: CompileBudget) -> None:
        self.function, self.state, self.patience = function, state, patience
        self.compiled = mx.compile(function, inputs=state, outputs=state)
        self.traces: set[Any] = set()
        self.warned = False

    def __call__(self, *arguments: Any) -> Any:
        if self.patience.seconds > 0:
            return self.function(*arguments)
        leaves: list[tuple[str, Any]] = tree_flatten(list(arguments))  # type: ignore[assignment]
        shapes = tuple((path, *_kind(leaf)) for path, leaf in leaves)
        if shapes in self.traces:
            return self.compiled(*arguments)
        if len(self.traces) < MOST_TRACES:
            return self._trace(shapes, arguments)
        self._warn(shapes)
        return self.function(*arguments)

    def _trace(self, shapes: tuple, arguments: tuple) -> Any:
        random: Any = mx.random.state
        before, numbers = list(_leaves(self.state)), random[0].tolist()
        try:
            with private_kernels():
                out = self.compiled(*arguments)
                mx.eval(out, self.state)
        except ValueError as error:
            if "transformation" not in str(error):
                raise
            for tree, name, leaf in before:
                tree[name] = leaf
            mx.random.seed((numbers[0] << 32) | numbers[1])
            self.patience.seconds = math.inf
            print("trainer.step.compile: this loss looks at its numbers as it goes; not compiled", file=sys.stderr)
            return self.function(*arguments)
        self.traces.add(shapes)
        return out

    def _warn(self, shapes: tuple) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"trainer.step.compile: batches of {MOST_TRACES} shapes are compiled, {shapes[0][1]} is one too many:"
                " it and all further ones run uncompiled; choose data.batching so that there are fewer lengths",
                stacklevel=4,
            )


def on_linux_cpu() -> bool:
    return sys.platform == "linux" and mx.default_device() == mx.Device(mx.cpu)


def has_kernel_compiler() -> bool:
    """Whether compiling makes anything faster here: on a CPU it takes a C++ compiler."""
    if os.environ.get("MLX_DISABLE_COMPILE"):
        return False
    return mx.default_device() != mx.Device(mx.cpu) or shutil.which("g++") is not None


@contextmanager
def private_kernels() -> Iterator[None]:
    """Inside, MLX builds its CPU kernels in the user's cache folder.

    In the common temporary folder others could plant a library; it is also emptied from time to time.
    """
    before = os.environ.get("TMPDIR")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlxlab"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        usable = on_linux_cpu() and folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK)
    except OSError:
        usable = False
    if usable:
        os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("TMPDIR", None)
        if before is not None:
            os.environ["TMPDIR"] = before


def _kind(leaf: Any) -> tuple[Any, Any]:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, mx.array) else (leaf, None)


def _leaves(tree: Any) -> Iterator[tuple[Any, Any, mx.array]]:
    """(container, key, array) of every array in dicts and lists."""
    if not isinstance(tree, dict | list):
        return
    for name in list(tree) if isinstance(tree, dict) else range(len(tree)):
        if isinstance(tree[name], mx.array):
            yield tree, name, tree[name]
        else:
            yield from _leaves(tree[name])
