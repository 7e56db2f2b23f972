"""What the small programs share: help on request, faults as lines, an exit code."""

import sys
from collections.abc import Callable, Sequence

from mlxlab.errors import UserError


def run_program(heading: str | None, argv: Sequence[str] | None, act: Callable[[list[str]], None]) -> int:
    """Calls `act` with the words of the command line, or prints the heading; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help", "help"} & set(words):
        print((heading or "").strip())
        return 0
    try:
        act(words)
    except UserError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    return 0
