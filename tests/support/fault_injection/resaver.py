"""Saves step 1 twice, in a process of its own for each call to the disk of the second save, which it does not survive.

The folder of the process that is killed at call N is `<folder>/N`. Prints the number of processes that were killed.
"""

import itertools
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]


def main(folder: Path) -> None:
    from support.fault_injection import faults

    for call in itertools.count(1):
        child = os.fork()
        if child == 0:
            faults.kill_in_a_save({"save": 2, "call": call})
            save_twice(folder / str(call))
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:  # the save has no such call
            print(call - 1)
            return


def save_twice(folder: Path) -> None:
    import mlx.core as mx

    from mlxlab.checkpoint.store import CheckpointStore
    from support.checkpoints import state_at

    for value in (1.0, 2.0):
        CheckpointStore(folder).save(1, {"w": mx.full((4,), value)}, {}, state_at(1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
