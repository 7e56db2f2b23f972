"""What the losses of every example cost the loop: each step of a small BERT logged, against none."""

import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.alternate import table
from benchmarks.subject import Subject
from mlxlab.callbacks.example_loss_logger import ExampleLossLogger


def example_losses(size: str = "nano", rounds: int = 60) -> str:
    """Rounds of one update without and one with the losses of its 32 examples logged."""
    subject = Subject(size, rows=32, length=40)
    steps: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    inside = []
    with tempfile.TemporaryDirectory() as folder:
        callback = ExampleLossLogger(1, 1024, 1_000_000, folder=Path(folder))
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
            # What the thread does for a step falls into the next one's time on the clock, but not into its CPU.
            time.sleep(0.005)
            cpu[logged].append(time.process_time() - busy)
        callback.on_end(subject.context, subject.state)
        written = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    alone, busy = median(steps[False]), median(cpu[False])
    rows: list[tuple[str, ...]] = [("losses by example", "ms", "against none", "CPU ms", "against none")]
    for logged, name in ((False, "none"), (True, "every example")):
        clock, work = median(steps[logged]), median(cpu[logged])
        rows.append((name, f"{1e3 * clock:.3f}", f"{clock / alone - 1:+.2%}"))
        rows[-1] += (f"{1e3 * work:.3f}", f"{work / busy - 1:+.2%}")
    title = f"an update of 32 examples, model/size={size}, medians of {rounds} pairs"
    share = f"In the loop it takes {1e6 * median(inside):.0f} microseconds, {median(inside) / alone:.2%} of the update"
    return f"{table(title, rows)}\n\n{share}; {written / rounds / 32:.1f} bytes an example on disk."
