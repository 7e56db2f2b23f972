"""Overhead of ExampleLossLogger: steps of a small BERT with and without logging the loss of every example."""

import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.alternate import table
from benchmarks.subject import Subject
from mlxlab.extensions.example_losses.callback import ExampleLossLogger
from mlxlab.terminal.wording import percent


def example_losses(size: str = "nano", rounds: int = 60) -> str:
    """Each round takes one step without logging, and one that logs the losses of its 32 examples."""
    subject = Subject(size, rows=32, length=40)
    steps: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    inside = []
    with tempfile.TemporaryDirectory() as folder:
        callback = ExampleLossLogger(1, 1024, folder=Path(folder))
        callback.on_start(subject.context, subject.state)
        subject.step()
        for number in range(2 * rounds):
            logged = number % 2 == 1
            busy, start = time.process_time(), time.perf_counter()
            result = subject.step()
            if logged:
                before = time.perf_counter()
                callback.on_step(subject.context, subject.state, result)
                inside.append(time.perf_counter() - before)
            steps[logged].append(time.perf_counter() - start)
            # The writer thread works during the next step's wall time; the sleep attributes its CPU time to this step.
            time.sleep(0.005)
            cpu[logged].append(time.process_time() - busy)
        callback.on_end(subject.context, subject.state)
        written = sum(file.stat().st_size for file in Path(folder).rglob("*.arrows"))
    baseline, busy = median(steps[False]), median(cpu[False])
    rows: list[tuple[str, ...]] = [("logging", "ms", "overhead", "CPU ms", "CPU overhead")]
    for logged, name in ((False, "none"), (True, "every example")):
        clock, work = median(steps[logged]), median(cpu[logged])
        rows.append((name, f"{1e3 * clock:.3f}", percent(clock / baseline - 1, 2, signed=True)))
        rows[-1] += (f"{1e3 * work:.3f}", percent(work / busy - 1, 2, signed=True))
    title = f"step of 32 examples, model/size={size}, medians of {rounds} pairs"
    callback_time = f"The callback takes {1e6 * median(inside):.0f} us, {percent(median(inside) / baseline, 2)} of the step"
    return f"{table(title, rows)}\n\n{callback_time}; {written / rounds / 32:.1f} bytes per example on disk."
