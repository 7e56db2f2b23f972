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

from mlxlab.experiment.job_record import read_record, write_record
from mlxlab.sweep.job import Job
from mlxlab.sweep.jobs import JobResult, run_jobs
from mlxlab.sweep.search import Search
from mlxlab.sweep.study import Study, budget_of, is_paused
from support.run_records import write_result

SETTINGS: dict[str, Any] = {
    "sampler": "random",
    "trials": None,
    "seed": 0,
    "objectives": None,
    "startup_trials": 2,
    "population_size": 4,
    "params": {},
    "pruner": "none",
    "min_budget": None,
    "max_budget": None,
    "budget_unit": None,
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

    def __init__(self, run: Run, objectives: list[str]) -> None:
        self.run = run
        self.objectives = objectives
        self.started: deque[Job] = deque()

    @property
    def num_free(self) -> int:
        return 1 - len(self.started)

    def start(self, job: Job) -> None:
        self.started.append(job)

    def wait(self) -> JobResult:
        job = self.started.popleft()
        record = read_record(job.folder)
        budget = _budget(job.overrides)
        record = replace(record, state="running", attempts=record.attempts + 1, budget=budget)
        write_record(job.folder, record)
        settings = [text.partition("=")[::2] for text in job.overrides if "env_set" not in text]
        values = self.run(dict(settings), budget or LENGTH, record.attempts > 1)
        if isinstance(values, str):
            record = replace(record, state="failed", reason=values, exit_code=1)
        else:
            names = [name.partition("/")[2] for name in self.objectives]
            write_result(job.folder, dict(zip(names, values, strict=True)), steps=budget or LENGTH)
            state = "finished" if budget is None else "paused"
            record = replace(record, state=state, value=values[0], exit_code=0)
        write_record(job.folder, record)
        return JobResult(job, record)

    def close(self) -> None:
        pass


def _budget(overrides: list[str]) -> int | None:
    found = re.search(r'"pause_at": (\d+)', " ".join(overrides))
    return int(found[1]) if found else None


def new_search(folder: Path, space: list[str], run: Run, **settings: object) -> Search:
    """A search of a space; `run` stands for its trials."""
    chosen = {**SETTINGS, **settings}
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
    jobs = FunctionJobs(run, chosen["objectives"] or ["valid/loss"])
    app.run_jobs = lambda next_job, end_job, **options: run_jobs(jobs, next_job, end_job) or 0
    return Search(app, chosen)


def run_search(folder: Path, space: list[str], run: Run, **settings: object) -> list[Trial]:
    """The trials of a search that ran to its end."""
    folder.mkdir(exist_ok=True)
    search = new_search(folder, space, run, **settings)
    search.study = Study(folder, search.space, search.objectives)
    search.run()
    return [facts_of(trial) for trial in search.study.trials()]
