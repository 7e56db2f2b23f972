"""Searches whose trials are a function in place of training."""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial

from mlxlab.errors import RunPruned, UserError
from mlxlab.record.attempts import begin_job, end_job, read_job
from mlxlab.sweep.jobs import Job, JobResult, record_of, run_jobs
from mlxlab.sweep.search import Search
from mlxlab.sweep.study import Study, budget_of, is_paused
from support.run_records import write_result

SETTINGS: dict[str, Any] = {
    "sampler": "random",
    "trials": None,
    "seed": 0,
    "startup_trials": 2,
    "params": {},
    "pruner": "none",
    "min_budget": None,
    "reduction_factor": 3,
}
LENGTH = 27  # steps of a whole run
Point = dict[str, str]
Run = Callable[[Point, int, bool], list[float] | str]
# A trial by its point, the step that it trains to, and whether it continues; a text is why it failed.


class Trial(NamedTuple):
    """What a test looks at of a trial: all but the times."""

    number: int
    point: dict[str, Any]
    state: str
    rungs: dict[int, float]
    values: list[float] | None
    budget: int | None


def facts_of(trial: FrozenTrial) -> Trial:
    state = "PAUSED" if is_paused(trial) else trial.state.name
    rungs = trial.intermediate_values
    return Trial(trial.number, trial.params, state, rungs, trial.values, budget_of(trial))


class FunctionJobs:
    """Runs each job when it is waited for, and leaves behind what a run does."""

    stop_signal = 0

    def __init__(self, run: Run) -> None:
        self.run = run
        self.started: deque[Job] = deque()

    @property
    def num_free(self) -> int:
        return 1 - len(self.started)

    def start(self, job: Job) -> None:
        self.started.append(job)

    def wait(self) -> JobResult:
        job = self.started.popleft()
        budget = _budget(job.overrides)
        identity = replace(job.identity, budget=budget)
        begin_job(job.folder, identity, "valid/loss")
        again = read_job(job.folder).attempts > 1
        settings = [text.partition("=")[::2] for text in job.overrides if "env_set" not in text]
        values = self.run(dict(settings), budget or LENGTH, again)
        error = None
        if isinstance(values, str):
            error = UserError(values)
        else:
            write_result(job.folder, {"loss": values[0]}, steps=budget or LENGTH)
            if budget is not None:
                error = RunPruned("paused", values[0])
        end_job(job.folder, error, None if isinstance(values, str) else values[0])
        return JobResult(job, record_of(job))

    def close(self) -> None:
        pass


def _budget(overrides: list[str]) -> int | None:
    found = re.search(r'"pause_at": (\d+)', " ".join(overrides))
    return int(found[1]) if found else None


def run_search(folder: Path, space: list[str], run: Run, **settings: object) -> list[Trial]:
    """The trials of a search of a space that ran to its end; `run` stands for its trials."""
    folder.mkdir(exist_ok=True)
    chosen: Any = {**SETTINGS, **settings}
    trainer = {"max_steps": LENGTH, "epochs": None, "eval_every": 1}
    overrides = OverridesParser.create().parse_overrides(space)
    config = {"objective": "valid/loss", "trainer": trainer}
    app: Any = SimpleNamespace(
        config=OmegaConf.create(config),
        folder=folder,
        objective="valid/loss",
        overrides={each.get_key_element(): each for each in overrides},
    )
    app.compose = lambda texts, number: Job(number, texts, app.config, folder / str(number))
    jobs = FunctionJobs(run)
    app.run_jobs = lambda next_job, end_job, **options: run_jobs(jobs, next_job, end_job) or 0
    search = Search(app, chosen)
    search.study = Study(folder, search.space, "valid/loss")
    search.run()
    return [facts_of(trial) for trial in search.study.trials()]
