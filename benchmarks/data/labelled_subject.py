"""Runs `train`; reports the time of its first step and its memory before the data set is built, and at the peak."""

import json
import sys
import threading
import time

import psutil


class MemorySampler(threading.Thread):
    """The peak of the resident bytes of this process, sampled 50 times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        while not self.stopped.wait(0.02):
            self.peak = max(self.peak, process.memory_info().rss)


def main(args: list[str]) -> int:
    """Runs `train` with `args`; prints JSON, see `labelled.Report`."""
    from mlxlab.data.labelled.dataset import LabelledDataset
    from mlxlab.training.state import TrainState

    sampler, process = MemorySampler(), psutil.Process()
    marks: dict[str, float] = {}
    init, record = LabelledDataset.__init__, TrainState.record

    def watched_init(self: LabelledDataset, *arguments: object, **options: object) -> None:
        marks["before"] = process.memory_info().rss
        sampler.start()
        init(self, *arguments, **options)  # type: ignore[arg-type]
        marks["built"] = process.memory_info().rss
        marks["building"] = max(sampler.peak, marks["built"])

    def record_first(self: TrainState, result: object) -> None:
        record(self, result)  # type: ignore[arg-type]
        marks.setdefault("first", time.time())
        marks.setdefault("cpu", time.process_time())

    LabelledDataset.__init__, TrainState.record = watched_init, record_first  # type: ignore[method-assign]
    from mlxlab.cli.train import main as train

    code = train(args)
    sampler.stopped.set()
    print(json.dumps({**marks, "start": 0.0, "peak": sampler.peak}))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
