"""The pairs of a trial with a launcher and configs that cost nothing: order, failures, reuse, limits."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from mlxlab.errors import ConfigError, DataError, UserError
from mlxlab.record.attempts import JobRecord
from mlxlab.record.run_record import Training
from mlxlab.run.writer import RunWriter
from mlxlab.sweep.jobs import Job, JobResult, run_jobs
from mlxlab.sweep.trial.pairs import Pairs
from mlxlab.sweep.trial.record import (
    EXIT_CODES,
    FinishedRuns,
    Question,
    TrialRecord,
    check_question,
    read_record,
    write_record,
)

QUESTION = Question(
    baseline="nowhere",
    change=["x=1"],
    overrides={"baseline": ["x=0"], "changed": ["x=1"]},
    metric="valid/loss",
    evaluation="best",
    min_gain=None,
    looks=[3, 12],
    first_seed=5,
    code={"commit": "a", "digest": ""},
)


class App:
    """Composes configs of a few keys."""

    def __init__(self, folder, launcher):
        self.folder = folder
        self.launcher = launcher

    def run_jobs(self, next_job, end_job, batch_size):
        run_jobs(self.launcher, next_job, end_job)
        return self.launcher.stop_signal

    def compose(self, overrides, number):
        values = {"data": {"rows": 1}, "overrides": overrides, "hydra": {}}
        return Job(number, overrides, OmegaConf.create(values), self.folder / str(number))


class Launcher:
    """Runs a function of the number and the overrides when it is waited for; the job that started last ends first."""

    def __init__(self, run, n_jobs=1):
        self.run = run
        self.n_jobs = n_jobs
        self.waiting, self.started = [], []
        self.stop_signal = 0

    @property
    def num_free(self):
        return self.n_jobs - len(self.waiting)

    def start(self, job):
        self.started.append(job.number)
        self.waiting.append(job)

    def wait(self):
        job = self.waiting.pop()
        value = self.run(job.number, job.overrides)
        if isinstance(value, str):
            code, reason = value.split(": ")
            state = "stopped" if code == "130" else "failed"
            self.stop_signal = 2 if state == "stopped" else 0
            return self._result(job, state=state, reason=reason, exit_code=int(code))
        with RunWriter(job.folder) as writer:
            final = {"valid/loss": value + 1}
            writer.trained(Training("valid/loss", best=value, final=final), 0)
        return self._result(job, state="finished", value=value, exit_code=0)

    def _result(self, job, **outcome):
        return JobResult(job, JobRecord(job.identity, seconds=0.1, **outcome))


def loss(number, overrides):
    return 1 + number // 2 % 3 / 100 - number % 2 * (0.1 + number / 1000)


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """Runs the pairs of a question; returns the record, the launcher and the lines of progress."""
    monkeypatch.setattr("mlxlab.sweep.trial.pairs.job_config", nullcontext)
    folder = tmp_path / "trials" / "t"
    folder.mkdir(parents=True)

    def run(launcher, seconds=None, **changes):
        record, lines = TrialRecord(replace(QUESTION, **changes), "trial"), []
        if (folder / "trial.json").exists():
            record = read_record(folder)
        monkeypatch.setattr("mlxlab.sweep.trial.pairs.logger.info", lines.append)
        Pairs(App(folder, launcher), record).run(seconds)
        assert read_record(folder) == record
        return record, launcher, lines

    run.folder = folder
    return run


def test_seeds_follow_that_of_the_baseline_and_pairs_share_them(trial):
    overrides = []

    def run(number, texts):
        overrides.append(" ".join(texts))
        return loss(number, texts)

    record, launcher, lines = trial(Launcher(run))
    assert record.verdict == "keep"
    assert launcher.started == list(range(2 * len(record.gains)))
    assert overrides[:4] == ["x=0 seed=5", "x=1 seed=5", "x=0 seed=6", "x=1 seed=6"]
    gains = [0.1 + (2 * pair + 1) / 1000 for pair in range(len(record.gains))]
    assert record.gains == pytest.approx(gains)
    assert lines[0] == "seed 5 baseline: valid/loss 1 after 0.1 s"


def test_several_jobs_end_in_any_order_and_are_looked_at_by_seed(trial):
    one, _, _ = trial(Launcher(loss))
    (trial.folder / "trial.json").unlink()
    several, launcher, _ = trial(Launcher(loss, n_jobs=4))
    assert several.gains == one.gains
    assert launcher.started[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        *(("78: diverged", "discard"), ("1: valid/loss is nan", "discard")),
        *(("139: killed by SIGSEGV", "discard"), ("124: timeout", "discard")),
        *(("65: a row", None), ("74: disk full", None)),
    ],
)
def test_a_changed_run_that_fails_by_itself_is_discarded(trial, result, verdict):
    launcher = Launcher(lambda number, texts: result if number == 3 else loss(number, texts))
    if verdict is None:
        with pytest.raises(UserError, match="seed 6 changed: ") as error:
            trial(launcher)
        assert error.value.exit_code == int(result[:2])
    else:
        record, _, _ = trial(launcher)
        assert (record.verdict, EXIT_CODES[record.verdict]) == ("discard", 10)
        assert record.reason == f"seed 6 changed failed: {result.partition(': ')[2]}"


def test_a_baseline_that_fails_is_an_error(trial):
    with pytest.raises(UserError, match="seed 5 baseline: diverged") as error:
        trial(Launcher(lambda number, texts: "78: diverged"))
    assert error.value.exit_code == 78


def test_an_interrupted_trial_keeps_its_finished_runs(trial):
    stops = Launcher(lambda number, texts: "130: stopped" if number == 3 else loss(number, texts))
    record, _, _ = trial(stops)
    assert (record.verdict, record.reason) == (None, "interrupted; the same command continues")
    again, launcher, _ = trial(Launcher(loss))
    assert launcher.started[0] == 3
    assert again.verdict == "keep"
    assert trial(Launcher(loss))[1].started == []


def test_no_pair_begins_after_the_time_is_up(trial, monkeypatch):
    times = iter(range(1000))
    monkeypatch.setattr("mlxlab.sweep.trial.pairs.time.monotonic", lambda: next(times))
    record, launcher, _ = trial(Launcher(loss), seconds=3)
    assert (record.verdict, EXIT_CODES[record.verdict]) == ("undecided", 11)
    assert launcher.started == [0, 1]
    assert record.reason == "no decision within the 3 seconds of budget="


def test_the_last_evaluation_and_a_single_look_may_be_asked_for(trial):
    record, _, _ = trial(Launcher(loss), evaluation="last", looks=[4, 4])
    assert record.runs[0].value == 2.0
    assert [look.pairs for look in record.looks] == [4]


def test_a_finished_baseline_is_reused_unless_its_data_differ(trial, monkeypatch, tmp_path):
    (tmp_path / "old").mkdir()
    monkeypatch.setattr(FinishedRuns, "find", lambda self, *args: (tmp_path / "old", 1.0))
    monkeypatch.setattr("mlxlab.sweep.trial.pairs.data_of", lambda folder: "same")
    record, launcher, lines = trial(Launcher(loss))
    assert launcher.started == [2 * pair + 1 for pair in range(len(record.gains))]
    assert f"trained before: {tmp_path / 'old'}" in lines[0]
    (trial.folder / "trial.json").unlink()
    monkeypatch.setattr("mlxlab.sweep.trial.pairs.data_of", lambda folder: folder)
    record, launcher, _ = trial(Launcher(loss))
    assert launcher.started[:3] == [1, 0, 3]
    assert not any(run.reused for run in record.runs)


def test_a_folder_answers_one_question(tmp_path):
    write_record(tmp_path, TrialRecord(QUESTION, "trial"))
    check_question(tmp_path, QUESTION)
    check_question(tmp_path / "new", QUESTION)
    with pytest.raises(ConfigError, match=r"another trial: change was \['x=1'\]"):
        check_question(tmp_path, replace(QUESTION, change=["x=2"]))
    with pytest.raises(ConfigError, match="the code has changed since"):
        check_question(tmp_path, replace(QUESTION, code={"commit": "b", "digest": ""}))
    (tmp_path / "trial.json").write_text('{"format": 1, "runs": [{"seed": -1}]}')
    with pytest.raises(DataError, match=r"trial\.json"):
        check_question(tmp_path, QUESTION)
