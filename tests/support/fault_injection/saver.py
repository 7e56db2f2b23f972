"""Saves steps 1 to 4 in a folder (keep 1), and prints what became of each save; a mark before and after each.

A mark is an attempt to open MARK, to be found in the log of strace. Nothing is done at the end of the interpreter.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
MARK = "/the-mark-of-a-save"


def main(folder: Path) -> None:
    import mlx.core as mx

    from mlxlab.checkpoint.store import CheckpointStore
    from support.checkpoints import state_at

    store = CheckpointStore(folder, keep=1)
    for step in (1, 2, 3, 4):
        weights = {f"w{number}": mx.arange(500) * step + number for number in range(40)}
        mx.eval(weights)
        optimizer = {"m": mx.full((300,), float(step))}
        result = "saved"
        mark()
        try:
            store.save(step, weights, optimizer, state_at(step), best_step=1)
        except Exception as error:
            result = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        mark()
        print(step, result, flush=True)
    os._exit(0)


def mark() -> None:
    with suppress(OSError):
        os.open(MARK, os.O_RDONLY)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
