"""Runs `train` and reports the time of its first step and the overhead of the training loop."""

import json
import sys
import time
from typing import Any


def main(args: list[str]) -> int:
    """Runs `train` with `args`; prints JSON: time of the first step, seconds and number of the others."""
    from mlxlab.training.state import TrainState
    from mlxlab.training.steps.step import PlainStep

    inside: list[tuple[float, float]] = []  # start and end of every step
    first: list[float] = []
    take_step, record = PlainStep.__call__, TrainState.record

    def timed(self: PlainStep, batch: Any) -> Any:
        start = time.perf_counter()
        out = take_step(self, batch)
        inside.append((start, time.perf_counter()))
        return out

    def record_first(self: TrainState, result: Any) -> None:
        record(self, result)
        if not first:
            first.append(time.time())

    PlainStep.__call__, TrainState.record = timed, record_first  # type: ignore[method-assign]
    from mlxlab.cli.train import main as train

    code = train(args)
    rows = inside[1:]
    steps = sum(end - start for start, end in rows)
    total = rows[-1][1] - rows[0][0] if rows else 0.0
    print(
        json.dumps(
            {
                "first": first[0] if first else None,
                "steps": steps,
                "total": total,
                "count": len(rows),
            }
        )
    )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
