"""Overhead of tracking: every step logged to a journal with an active upload, compared with no tracker."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.alternate import alternate, table
from benchmarks.subject import Subject
from mlxlab.terminal.wording import percent
from mlxlab.tracking.journal import Journal
from mlxlab.tracking.tracker import NoTracker, Tracker
from mlxlab.training.loop import log_totals


def tracking(size: str = "nano", rounds: int = 9, steps: int = 20) -> str:
    """Each round takes `steps` steps of a small BERT and logs every step."""
    subject = Subject(size, rows=32, length=40)
    with tempfile.TemporaryDirectory() as folder:
        journal = _journal(Path(folder), f"sqlite:///{folder}/store.db")
        journal.start({}, {})
        trackers: dict[str, Tracker] = {"tracking=none": NoTracker(), "tracking=mlflow": journal}

        def trial(name: str) -> None:
            context = replace(subject.context, tracker=trackers[name])
            for _ in range(steps):
                log_totals(context, subject.state, subject.step())

        trials = alternate({name: (lambda n=name: trial(n)) for name in trackers}, rounds)  # type: ignore[misc]
        journal.end("FINISHED")
        unreachable = _journal(Path(folder) / "unreachable", "http://127.0.0.1:9")
        before = time.perf_counter()
        unreachable.start({}, {})
        start = time.perf_counter() - before
        unreachable.end("KILLED")
    baseline = trials[0].median
    rows: list[tuple[str, ...]] = [("variant", "ms/step", "overhead")]
    rows += [
        (t.name, f"{1000 * t.median / steps:.2f}", percent(t.median / baseline - 1, 2, signed=True))
        for t in trials
    ]
    title = f"every step logged, model/size={size}, {steps} steps per round, medians of {rounds}"
    return f"{table(title, rows)}\n\nStartup with an unreachable tracking server: {start:.3f} s"


def _journal(folder: Path, uri: str) -> Journal:
    folder.mkdir(exist_ok=True)
    return Journal(
        uri, str(folder / "artifacts"), "benchmark", False, 5.0, folder=folder, project=folder
    )
