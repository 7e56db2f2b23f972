"""Verifies that each checkpoint of a run is bitwise what training from the previous one gives.

    mlxlab verify RUN_FOLDER [from_scratch=true]

Prints `verified`, or what differs first (exit 76). Takes as long as the training between the checkpoints took. Holds
for the device and the versions that the run was made with.
"""

from pathlib import Path

from mlxlab.cli.app import Subcommand, build_main


def _verify(from_scratch: bool = False, *, args: list[str]) -> None:
    """Verifies a run folder.

    Args:
        from_scratch: also trains up to the first checkpoint, which is otherwise done only if it is the only one.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.experiment.verify import verify_run

    for line in verify_run(Path(args[0]), from_start=from_scratch):
        print(line, flush=True)
    print("verified")


main = build_main(__doc__, Subcommand(_verify, num_positional=(1, 1)))
