"""The command as the user typed it, for messages that name commands."""

import sys
from pathlib import Path


def command(subcommand: str) -> str:
    """`mlxlab runs sync`, or `scripts/runs.py sync` when a program of scripts/ is running."""
    called = Path(sys.argv[0])
    if called.suffix == ".py" and called.parent.name == "scripts":
        name, _, args = subcommand.partition(" ")
        return f"{called.with_name(name)}.py {args}".rstrip()
    return f"mlxlab {subcommand}"
