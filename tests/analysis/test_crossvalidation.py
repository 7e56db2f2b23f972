"""Processes of a cross-validation, the time that they take, and their warnings."""

import logging
import signal
import subprocess
import sys
import time

import pytest

from mlxlab.analysis import crossvalidation
from mlxlab.analysis.crossvalidation import FoldRun, train_folds
from mlxlab.analysis.fold_warnings import fold_warnings
from mlxlab.data.labelled.split import Overlap, describe_overlap
from mlxlab.experiment.manifest import RunManifest


def test_a_stop_while_a_process_starts_ends_that_process(tmp_path, monkeypatch):
    started: list[subprocess.Popen] = []
    real = subprocess.Popen

    def start_and_stop(*args, **options):
        started.append(real(*args, **options))
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    def stop(number, _):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", start_and_stop)
    before = signal.signal(signal.SIGTERM, stop)
    run = FoldRun("seed 0 fold 0", tmp_path / "run", [sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(KeyboardInterrupt):
            train_folds([run], jobs=1, title="")
        assert started[0].poll() == -signal.SIGTERM
    finally:
        started[0].kill()
        started[0].wait()
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("elapsed", "waiting", "expected"),
    [([], 1, "0:00:20"), ([20.0], 1, "0:00:20"), ([5.0], 1, "0:00:20"), ([15.0, 5.0], 3, "0:00:45")],
)
def test_a_run_that_waits_takes_the_time_of_a_whole_run(elapsed, waiting, expected):
    now = time.monotonic()
    active = [(None, None, now - seconds) for seconds in elapsed]
    assert crossvalidation._time_left([20.0, 20.0], active, waiting, jobs=2) == f", ETA {expected}"


def test_warnings_that_differ_in_their_numbers_are_one_with_the_largest(tmp_path):
    folders = [tmp_path / str(fold) for fold in range(3)]
    for rows, folder in zip((14, 17, 15), folders, strict=True):
        lines = [describe_overlap(Overlap(rows, "training", "validation", False), f"rows.csv:{rows}", 80)]
        lines.append(describe_overlap(Overlap(3, "test", "training", True), "rows.csv:8", 80))
        with RunManifest(folder) as manifest:
            manifest.begin({"messages": lines})
            if rows > 14:
                logging.getLogger("mlxlab.test").warning(f"step {rows}: not finite")
    overlap, nonfinite = fold_warnings(folders)
    assert overlap.startswith("up to 17 training rows have the same input as validation rows: ")
    assert overlap.endswith("data.on_overlap=drop leaves them out (3 of 3 runs)")
    assert nonfinite == "step 17: not finite (2 of 3 runs)"
