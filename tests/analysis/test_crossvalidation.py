"""Processes of a cross-validation, the time that they take, and their warnings."""

import logging
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from mlxlab.analysis import crossvalidation
from mlxlab.analysis.crossvalidation import FoldRun, train_folds
from mlxlab.analysis.fold_warnings import fold_warnings
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
    run = FoldRun(
        "seed 0 fold 0", tmp_path / "run", [sys.executable, "-c", "import time; time.sleep(60)"]
    )
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
    [
        ([], 1, "0:00:20"),
        ([20.0], 1, "0:00:20"),
        ([5.0], 1, "0:00:20"),
        ([15.0, 5.0], 3, "0:00:45"),
    ],
)
def test_a_run_that_waits_takes_the_time_of_a_whole_run(elapsed, waiting, expected):
    now = time.monotonic()
    active = [(None, None, now - seconds) for seconds in elapsed]
    assert crossvalidation._time_left([20.0, 20.0], active, waiting, jobs=2) == f", ETA {expected}"


class Clock:
    """Time that passes in `sleep` only, and that stands still for 10 minutes after a minute, as after Ctrl-Z."""

    def __init__(self):
        self.now, self.stops = 0.0, [60.0]

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        if self.stops and self.now > self.stops[0]:
            self.stops.clear()
            self.now += 600.0


def test_lines_come_soon_at_first_and_then_every_half_minute_also_after_a_stop(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    clock, times = Clock(), list[float]()
    process = SimpleNamespace(poll=lambda: 0 if clock.now > 710 else None, returncode=0)
    result = {"final": {"valid/loss": 0.5}, "steps": 3, "main_metric": "valid/loss"}
    monkeypatch.setattr(crossvalidation, "time", clock)
    monkeypatch.setattr(crossvalidation, "read_result", lambda run: None)
    monkeypatch.setattr(crossvalidation, "_start", lambda run: process)
    monkeypatch.setattr(crossvalidation, "_result", lambda run, code: result)
    monkeypatch.setattr(crossvalidation, "main_metric", lambda result: "valid/loss")
    monkeypatch.setattr(crossvalidation, "_value", lambda values, metric: values[metric])
    monkeypatch.setattr(crossvalidation, "_last_line", lambda run: times.append(clock.now) or "")
    train_folds([FoldRun("seed 0 fold 0", tmp_path / "run", [])], jobs=1, title="")
    assert [round(time) for time in times] == [3, 6, 12, 25, 49, 660, 690]


def test_warnings_that_differ_in_their_numbers_are_one_with_the_largest(tmp_path):
    folders = [tmp_path / str(fold) for fold in range(3)]
    for rows, folder in zip((14, 17, 15), folders, strict=True):
        lines = [
            f"rows.csv: {rows} training rows with the same input as validation rows, at rows.csv:{rows}"
        ]
        lines.append("rows.csv: 3 training rows with the same input as test rows; left out")
        with RunManifest(folder) as manifest:
            manifest.begin({"messages": lines})
            if rows > 14:
                logging.getLogger("mlxlab.test").warning(f"step {rows}: not finite")
    overlap, nonfinite = fold_warnings(folders)
    assert overlap.startswith("rows.csv: 17 training rows with the same input as validation rows")
    assert overlap.endswith("data.on_overlap=drop leaves them out (3 of 3 runs)")
    assert nonfinite == "step 17: not finite (2 of 3 runs)"


def warned(folder, *lines):
    with RunManifest(folder) as manifest:
        manifest.begin({})
        for line in lines:
            logging.getLogger("mlxlab.test").warning(line)
    return folder


def test_of_equal_warnings_of_one_run_the_largest_is_told(tmp_path):
    folder = warned(
        tmp_path / "run", "step 5: not finite", "step 9: not finite", "step 7: not finite"
    )
    assert fold_warnings([folder]) == ["step 9: not finite (1 of 1 runs)"]


def test_numbers_in_names_tell_warnings_apart_but_not_the_folder_of_the_run(tmp_path):
    lines = [
        "column 'x1': {0} cells",
        "column 'x2': 1,{0} cells",
        "layer_3-4: grew by {0}.5 %",
        "layer_3-5: v1.{0}",
    ]
    folders = [tmp_path / f"fold{n}" for n in range(2)]
    for number, folder in enumerate(folders, 20):
        warned(folder, *(line.format(number) for line in lines), f"{folder}/a.png: not written")
    assert fold_warnings(folders) == [
        "column 'x1': 21 cells (2 of 2 runs)",
        "column 'x2': 1,21 cells (2 of 2 runs)",
        "layer_3-4: grew by 21.5 % (2 of 2 runs)",
        "layer_3-5: v1.20 (1 of 2 runs)",
        f"{tmp_path}/fold0/a.png: not written (2 of 2 runs)",
        "layer_3-5: v1.21 (1 of 2 runs)",
    ]
