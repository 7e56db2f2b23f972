"""Proves that a run's checkpoints are whole, and that each is what training from the one before gives, bit for bit.

    verify.py RUN_FOLDER [from=start]

from=start  trains the first checkpoint again too, from nothing; otherwise only where it is the only one

Prints `verified`, or what differs first (exit 76). Takes as long as the training between the checkpoints took. Holds
on the device and with the versions that the run was made with.
"""

from collections.abc import Sequence
from pathlib import Path

from mlxlab.cli.app import run_program
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_program(__doc__, argv, _verify)


def _verify(words: list[str]) -> None:
    folders = [word for word in words if "=" not in word]
    for word in words:
        if "=" in word and word != "from=start":
            raise ConfigError(f"{word}: unknown{suggestion(word, ['from=start'])}")
    if len(folders) != 1:
        raise ConfigError(f"expected one run folder, got {len(folders)}")
    from mlxlab.experiment.verify import verify_run

    for line in verify_run(Path(folders[0]), from_start="from=start" in words):
        print(line, flush=True)
    print("verified")
