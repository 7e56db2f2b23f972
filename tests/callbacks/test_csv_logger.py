"""CSVLogger: readable by pandas, complete after a resume, no row lost."""

import csv
import errno
import math
import os

import pandas as pd
import pytest

from mlxlab.callbacks import csv_logger
from mlxlab.callbacks.csv_logger import CSVLogger
from mlxlab.callbacks.memory_monitor import MemoryMonitor
from mlxlab.errors import CannotCreateError, NotAllowedError
from mlxlab.files.atomic import write_atomic
from support.models import (
    NoOpCallback,
    RandomBatches,
    Recorder,
    fit,
    fit_in,
    make_model,
    make_run,
    make_trainer,
)


def train(folder, *, path="metrics.csv", allow_outside=False, **options):
    folder.mkdir(exist_ok=True)
    run = make_run(make_model(dropout=0.3), RandomBatches(rows=22), tracker=Recorder())
    callbacks = [MemoryMonitor(5), CSVLogger(path, allow_outside, folder=folder)]
    return fit_in(folder, make_trainer(), run, callbacks, **options).context.tracker


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def logged(tracker):
    rows = {}
    for step, metrics in tracker.lines:
        rows.setdefault(step, {}).update(metrics)
    return rows


def test_metrics_of_an_analysis_enter_the_rows_of_their_steps_at_the_end(tmp_path):
    class Late(NoOpCallback):
        def on_end(self, context, state) -> None:
            context.log(state, {"analysis/b": 1.0}, 0)
            context.log(state, {"analysis/a": 0.5}, 4)

    run = make_run(tracker=Recorder())
    fit(make_trainer(), run, [Late(), CSVLogger("metrics.csv", False, folder=tmp_path)])
    rows = {int(row["step"]): row for row in rows_of(tmp_path / "metrics.csv")}
    assert [*rows] == sorted(logged(run.context.tracker))
    values = rows[4]["analysis/a"], rows[0]["analysis/b"], rows[8]["analysis/a"]
    assert values == ("0.5", "1.0", "")


def test_the_file_holds_every_metric_of_every_step_to_the_last_digit(tmp_path):
    tracker = train(tmp_path)
    rows = rows_of(tmp_path / "metrics.csv")
    assert list(rows[0])[:3] == ["step", "time", "epoch"]
    expected = logged(tracker)
    assert [int(row["step"]) for row in rows] == sorted(expected)
    for row in rows:
        values = {
            name: float(value)
            for name, value in row.items()
            if value and name not in ("step", "time", "epoch")
        }
        assert values == expected[int(row["step"])]
    assert [row["epoch"] for row in rows if row["valid/loss"]] == ["1", "2", "3"]
    assert tmp_path / "metrics.csv" in tracker.artifacts


@pytest.mark.parametrize("step", [2, 7, 12])
def test_a_stopped_and_resumed_run_has_the_rows_of_the_uninterrupted_one(tmp_path, step):
    files = [tmp_path / name / "metrics.csv" for name in ("uninterrupted", "stopped")]
    train(files[0].parent)
    train(files[1].parent, stop_at=step)
    if step > 3:  # as a kill after a later step would leave it, and a torn line
        columns = len(rows_of(files[1])[0])
        with files[1].open("a") as file:
            file.write(f"{step + 1},0,0,9.9" + "," * (columns - 4) + f"\n{step + 1},0")
    train(files[1].parent, resume=True)
    expected, resumed = map(rows_of, files)
    names = ["train/loss", "train/grad_norm", "train/learning_rate", "step", "epoch"]
    for name in [*names, "valid/loss", "valid/accuracy"]:
        assert [row[name] for row in resumed] == [row[name] for row in expected]
    measured = [[bool(row["memory/active"]) for row in rows] for rows in (resumed, expected)]
    assert measured[0] == measured[1]


def test_a_new_run_in_the_same_folder_replaces_the_file(tmp_path):
    train(tmp_path)
    train(tmp_path)
    steps = [int(row["step"]) for row in rows_of(tmp_path / "metrics.csv")]
    assert steps == sorted(set(steps))


class Odd(NoOpCallback):
    """Logs metrics whose names begin at some steps."""

    def on_step(self, context, state, result) -> None:
        step = state.progress.step
        context.log(state, {f"metric {step // 5}": step / 3, "nan": math.nan})
        context.log(state, {'odd, "name"': -math.inf})


def test_a_new_metric_gets_a_column_and_no_row_is_lost(tmp_path):
    fit(make_trainer(), make_run(), [Odd(), CSVLogger("a.csv", False, folder=tmp_path)])
    rows = rows_of(tmp_path / "a.csv")
    steps = [int(row["step"]) for row in rows]
    assert steps == list(range(1, len(rows) + 1))
    assert all(
        float(row[f"metric {step // 5}"]) == step / 3 for step, row in zip(steps, rows, strict=True)
    )
    first = ["nan", 'odd, "name"', "metric 1"]
    assert [name for name in rows[0] if name in first] == first
    frame = pd.read_csv(tmp_path / "a.csv")
    assert frame["nan"].isna().all()
    assert (frame['odd, "name"'] == -math.inf).all()


def test_rows_that_the_disk_refuses_are_written_later(tmp_path, monkeypatch, caplog):
    train(tmp_path / "expected")
    attempts = []

    def refuse_some(*args, **options):
        attempts.append(args)
        if len(attempts) in (2, 3, 4):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomic(*args, **options)

    monkeypatch.setattr(csv_logger, "write_atomic", refuse_some)
    train(tmp_path / "refused")
    assert len(attempts) > 5
    expected, refused = (
        rows_of(tmp_path / name / "metrics.csv") for name in ("expected", "refused")
    )
    assert [row["train/loss"] for row in refused] == [row["train/loss"] for row in expected]
    assert caplog.text.count("wait in memory") == 1


def test_subfolders_are_created_and_failures_are_reported(tmp_path):
    train(tmp_path / "a", path="tables/metrics.csv")
    assert rows_of(tmp_path / "a" / "tables" / "metrics.csv")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tables").write_text("no folder")
    with pytest.raises(CannotCreateError, match="tables"):
        train(tmp_path / "b", path="tables/metrics.csv")


@pytest.mark.parametrize("path", ["../metrics.csv", "/tmp/elsewhere/a.csv", "link/metrics.csv"])
def test_a_path_outside_the_run_folder_is_refused_unless_allowed(tmp_path, path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(NotAllowedError, match="allow_outside"):
        CSVLogger(path, allow_outside=False, folder=folder)
    assert CSVLogger(path, allow_outside=True, folder=folder).path is not None
