"""Proves that a run's checkpoints are whole, and that each is what training from the one before gives, bit for bit.

    verify.py RUN_FOLDER [from=start]

from=start  trains the first checkpoint again too, from nothing; otherwise only where it is the only one

Prints `verified`, or what differs first (exit 76). Takes as long as the training between the checkpoints took. Holds
on the device and with the versions that the run was made with.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from mlxlab.config.nearest import suggestion
from mlxlab.errors import ConfigFault, Fault


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help", "help"} & set(words):
        print((__doc__ or "").strip())
        return 0
    try:
        folders = [word for word in words if "=" not in word]
        for word in words:
            if "=" in word and word != "from=start":
                raise ConfigFault(f"{word}: unknown{suggestion(word, ['from=start'])}")
        if len(folders) != 1:
            raise ConfigFault(f"wanted one run folder, got {len(folders)}")
        from mlxlab.replay import verify

        for line in verify(Path(folders[0]), from_start="from=start" in words):
            print(line, flush=True)
        print("verified")
    except Fault as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    return 0
