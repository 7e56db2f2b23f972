"""Verifies that each checkpoint of a run is bitwise what training from the previous one gives.

    mlxlab verify RUN_FOLDER [from_scratch=true]

Prints `verified`, or what differs first (exit 76). Takes as long as the training between the checkpoints took. Holds
for the device and the versions that the run was made with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxlab.cli.app import run_command
from mlxlab.cli.args import parse_args


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `verify`.

    Args:
        from_scratch: also trains up to the first checkpoint, which is otherwise done only if it is the only one.
    """

    from_scratch: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_command(__doc__, argv, _verify, options=[f"{__name__}.VerifyOptions"])


def _verify(args: list[str]) -> None:
    options, folders, _ = parse_args(args, VerifyOptions, names=(1, 1))
    from mlxlab.experiment.verify import verify_run

    for line in verify_run(Path(folders[0]), from_start=options.from_scratch):
        print(line, flush=True)
    print("verified")
