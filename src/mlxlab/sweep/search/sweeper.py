"""The sweeper of `hydra/sweeper=search`: proposes trials, runs each as a job of Hydra's launcher, keeps the study."""

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlxlab import terminal
from mlxlab.config.hydra.overrides import as_typed
from mlxlab.config.hydra.search_space import read_space
from mlxlab.config.schema.root import Metric
from mlxlab.constraints import Count, Ge, Lt, Size
from mlxlab.errors import ConfigError, RunInterrupted
from mlxlab.sweep.continued_sweep import continuation, sweep_start
from mlxlab.sweep.job_journal import open_job_journal
from mlxlab.sweep.launcher.build import open_jobs
from mlxlab.sweep.parent_run import sweep_folder
from mlxlab.sweep.progress_line import progress_line
from mlxlab.sweep.pruning.settings import Name as PrunerName
from mlxlab.sweep.pruning.settings import read_pruning
from mlxlab.sweep.reports.search_result import write_search_result
from mlxlab.sweep.search.build_sampler import (
    Name,
    build_sampler,
    check_sampler,
    directions,
    num_trials,
    optuna_version,
    sampler_settings,
)
from mlxlab.sweep.search.commands import trial_command
from mlxlab.sweep.search.samplers import Sampler
from mlxlab.sweep.search.study import FILE, Study, StudySettings, open_study
from mlxlab.sweep.search.trial_launcher import TrialLauncher
from mlxlab.sweep.search.trial_loop import run_trials
from mlxlab.training.stop_rule import Unit

_SIGNAL = 128

logger = logging.getLogger(__name__)


class SearchSweeper:
    """A search over the keys that the command line or `params` gives several values.

    Args:
        sampler: tpe (Bergstra et al. 2011), cma (CMA-ES, Hansen 2016; intervals and ranges only), nsga (NSGA-II, Deb et
            al. 2002; for several objectives), random, or grid: every combination.
        trials: of the whole study; null is the whole grid, or the whole space if random draws from a finite one,
            otherwise 20.
        seed: of the sampler; that of each trial is the key `seed`.
        objectives: metrics of the best evaluation, each minimised or maximised; null is the `objective` of the config.
        startup_trials: of tpe: random trials before the first that is modelled.
        population_size: of nsga, null is 10; of cma, null is 4 + 3 ln(number of keys).
        params: search space of a config file: override by key, `trainer.learning_rate: interval(1e-5,1e-3)`.
        pruner: which trials stop early: none, median, asha (Li et al. 2020) or hyperband (Li et al. 2018).
        min_budget: of the first rung, null is max_budget / reduction_factor^3, or that of the first evaluation; of
            median: before which nothing is pruned.
        max_budget: of a whole run, null is trainer.max_steps or trainer.epochs.
        budget_unit: steps, epochs, or null: steps if trainer.max_steps is set, else epochs.
        reduction_factor: a rung has this many times the budget of the one below; one trial in as many is promoted.

    Raises:
        ConfigError: the sampler is not installed, or cannot search this space.
    """

    def __init__(
        self,
        sampler: Name,
        trials: Size | None,
        seed: Annotated[int, Ge(0), Lt(2**32)],
        objectives: list[Metric] | None,
        startup_trials: Count,
        population_size: Annotated[int, Ge(2)] | None,
        params: dict[str, str | int | float | bool],
        pruner: PrunerName,
        min_budget: Size | None,
        max_budget: Size | None,
        budget_unit: Unit | None,
        reduction_factor: Annotated[int, Ge(2)],
        *,
        config: DictConfig,
        context: HydraContext,
        task: TaskFunction,
    ) -> None:
        self.config, self.context, self.task = config, context, task
        in_file = {key: str(value) for key, value in params.items()}
        overrides, self.space = read_space(as_typed(config.hydra.overrides.task), in_file)
        names = [str(name) for name in objectives or [config.objective]]
        check_sampler(sampler, pruner, len(names))
        self.objectives = directions(names)
        budgets = budget_unit, min_budget, max_budget, reduction_factor
        direction = self.objectives[names[0]]
        self.pruning = read_pruning(
            pruner, *budgets, config=config, space=self.space, direction=direction
        )
        self.overrides = [*overrides, *self.pruning.overrides]
        self.num_trials = num_trials(sampler, self.space, trials)
        self.settings: StudySettings = {
            "space": {domain.key: str(domain) for domain in self.space},
            "overrides": self.overrides,
            "objectives": self.objectives,
            "sampler": sampler,
            "sampler_settings": sampler_settings(
                sampler, self.space, seed, startup_trials, population_size
            ),
            "pruner": pruner,
            "pruner_settings": self.pruning.settings,
            "optuna": optuna_version(sampler),
        }

    def sweep(self) -> int:
        """Runs the trials that the study in the sweep's folder does not have yet; returns the exit code.

        1 if a trial failed, 128 + the number of the signal that stopped a trial, else 0.

        Raises:
            ConfigError: the folder holds the study of another search.
            CannotCreateError: another process runs this search, or the folder cannot be made.
            DataError, WriteError: the study is damaged, or the disk cannot be written.
        """
        folder, start = sweep_folder(self.config), sweep_start(self.config)
        with open_job_journal(folder, start) as journal:
            if journal.jobs:
                raise ConfigError(
                    f"{folder}: holds jobs of another sweep; choose another hydra.sweep.dir"
                )
            with open_study(folder / FILE, self.settings, self.space) as study:
                journal.record_start(start)
                return self._search(study, folder)

    def _search(self, study: Study, folder: Path) -> int:
        command_of = partial(trial_command, self.config, self.overrides)
        exit_code = 1
        sampler = build_sampler(study, self.settings, self.space)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        self.context.callbacks.on_multirun_start(config=self.config, config_name="train")
        try:
            exit_code = self._run_trials(study, sampler, folder)
        finally:
            terminal.show(write_search_result(study, folder, command_of))
            self.context.callbacks.on_multirun_end(
                config=self.config, config_name="train", exit_code=exit_code
            )
        if exit_code > _SIGNAL:
            done = f"{len(study.ended)} of {self.num_trials} trials"
            logger.info(f"stopped after {done}; continue: {continuation(folder, self.config)}")
        return exit_code

    def _run_trials(self, study: Study, sampler: Sampler, folder: Path) -> int:
        if earlier := len(study.ended):
            logger.info(f"{folder}: {earlier} of {self.num_trials} trials have ended")
        names = str(self.config.objective), list(self.objectives)
        with open_jobs(self.config, self.context, self.task) as jobs:
            launcher = TrialLauncher(
                jobs, folder, self.overrides, self.pruning, *names, self.num_trials
            )
            try:
                with progress_line(launcher.running):
                    run_trials(study, sampler, self.pruning.pruner, self.num_trials, launcher)
            except RunInterrupted as stop:
                return stop.exit_code
        return 1 if any(trial.state == "failed" for trial in study.trials) else 0
