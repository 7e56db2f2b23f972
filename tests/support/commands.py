"""Commands as functions of a test's process."""

from collections.abc import Callable, Sequence
from functools import partial

from mlxlab.cli import main as dispatcher
from mlxlab.cli.command import run_command


def command(name: str) -> Callable[[Sequence[str]], int]:
    """`mlxlab NAME` as a function from its arguments to its exit code."""
    return partial(run_command, dispatcher.command_module(name))
