"""One run of `train` that tells when its first update was done, and what the loop took beside the updates."""

import json
import sys
import time
from typing import Any


def main(words: list[str]) -> int:
    """Runs the command line; prints a line of JSON at its end: the clock at the first update, seconds of the rest."""
    from mlxlab.training.state import TrainState
    from mlxlab.training.steps.step import PlainStep

    inside: list[tuple[float, float]] = []  # start and end of every update
    first: list[float] = []
    update, record = PlainStep.__call__, TrainState.record

    def timed(self: PlainStep, batch: Any) -> Any:
        start = time.perf_counter()
        out = update(self, batch)
        inside.append((start, time.perf_counter()))
        return out

    def noted(self: TrainState, result: Any) -> None:
        record(self, result)
        if not first:
            first.append(time.time())

    PlainStep.__call__, TrainState.record = timed, noted  # type: ignore[method-assign]
    from mlxlab.cli.train import main as train

    code = train(words)
    rows = inside[1:]
    steps = sum(end - start for start, end in rows)
    total = rows[-1][1] - rows[0][0] if rows else 0.0
    print(json.dumps({"first": first[0] if first else None, "steps": steps, "total": total, "count": len(rows)}))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
