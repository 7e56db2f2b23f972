"""Verifies that each checkpoint of a run is bitwise what training from the previous one gives.

    mlxlab verify run=RUN_FOLDER [from_scratch=true] [trust_folder=true]

Prints `verified`, or what differs first (exit 76). Takes as long as the training between the checkpoints took. Holds
for the device and the versions that the run was made with.
"""

from pathlib import Path

from mlxlab.cli.app import print_json


def verify(
    run: Path, from_scratch: bool = False, trust_folder: bool = False, json: bool = False
) -> None:
    """Verifies a run folder.

    Args:
        run: a run folder.
        from_scratch: also trains up to the first checkpoint, which is otherwise done only if it is the only one.
        trust_folder: uses callbacks of your own that the run had; for folders of your own.
        json: prints JSON instead.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.run.verify import verify_run

    lines = verify_run(run, from_start=from_scratch, trusted=trust_folder)
    if json:
        print_json({"verified": True, "lines": list(lines)})
        return
    for line in lines:
        print(line, flush=True)
    print("verified")
