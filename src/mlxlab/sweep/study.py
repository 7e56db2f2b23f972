"""The trials of a search in `study.jsonl`: the journal of Optuna, JSON lines without a pickle.

One process at a time writes it: the lock of the sweep's folder sees to that. Each change is one line.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlxlab.analysis.sweeps.sweep_start import STUDY
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import parse_json, read_bytes
from mlxlab.schema.constraints import Size
from mlxlab.schema.metric_names import lower_is_better
from mlxlab.sweep.search_space import Domain, distributions

_NAME = "search"
_BUDGET = "budget"  # attribute of a trial
_MAX_BYTES = 2**30


class Attributes(TypedDict):
    """What Optuna does not know of a trial: the budget at which its job pauses; null at the end of its run."""

    budget: Size | None


def budget_of(trial: FrozenTrial) -> int | None:
    budget: int | None = trial.user_attrs[_BUDGET]
    return budget


def is_paused(trial: FrozenTrial) -> bool:
    """Whether a trial, which runs as far as Optuna knows, has reached its budget."""
    return trial.state == TrialState.RUNNING and budget_of(trial) in trial.intermediate_values


def is_unfinished(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING and not is_paused(trial)


class Study:
    """The trials of a search so far.

    Raises:
        DataError: the file is not the journal of such a search, or was damaged.
    """

    def __init__(self, folder: Path, space: list[Domain], objective: str) -> None:
        self.path = folder / STUDY
        self.direction = "minimize" if lower_is_better(objective) else "maximize"
        self._distributions = distributions(space)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        _repair(self.path)
        # The lock is a file: of a process that was killed a link would stay, which no folder of ours may hold.
        lock = JournalFileOpenLock(str(self.path))
        with self._reads():
            self._storage = JournalStorage(JournalFileBackend(str(self.path), lock))
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=_NAME,
                direction=self.direction,
                load_if_exists=True,
            )
            self._id = self._storage.get_study_id_from_name(_NAME)
            if self._study.direction.name.lower() != self.direction:
                raise ValueError

    @contextmanager
    def _reads(self) -> Iterator[None]:
        try:
            yield
        except (AssertionError, LookupError, RecursionError, TypeError, ValueError) as error:
            kind = type(error).__name__
            raise DataError(f"{self.path}: not the journal of this search ({kind})") from None

    def trials(self) -> list[FrozenTrial]:
        """The trials by number; DataError if one of them is not of the space."""
        with self._reads():
            trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            where = f"{self.path}: trial {trial.number}"
            known = self._distributions
            if trial.distributions != known or trial.params.keys() != known.keys():
                raise DataError(f"{where}: expected the keys and values of the search")
            parse_json(json.dumps(trial.user_attrs), Attributes, where)
        return trials

    def trials_as_seen(self) -> list[FrozenTrial]:
        """The trials as samplers see them: those that are paused are pruned."""
        return [_as_pruned(trial) if is_paused(trial) else trial for trial in self.trials()]

    def best_trial(self) -> FrozenTrial | None:
        """The first trial with the best value; None if no trial has one."""
        with suppress(ValueError):
            return self._study.best_trial
        return None

    def add(self, proposed: FrozenTrial, budget: int | None) -> None:
        """Adds a trial with the point of a proposal."""
        trial = create_trial(
            state=TrialState.RUNNING,
            params=proposed.params,
            distributions=proposed.distributions,
            system_attrs=proposed.system_attrs,
            user_attrs={_BUDGET: budget},
        )
        self._study.add_trial(trial)

    def set_budget(self, number: int, budget: int | None) -> None:
        """A paused trial continues, to pause again at another budget, or at the end of its run."""
        self._storage.set_trial_user_attr(self._trial_id(number), _BUDGET, budget)

    def pause(self, number: int, budget: int, value: float) -> None:
        """A trial has reached its budget with this objective."""
        self._storage.set_trial_intermediate_value(self._trial_id(number), budget, value)

    def finish(self, number: int, value: float) -> None:
        self._study.tell(number, value)

    def fail(self, number: int) -> None:
        self._study.tell(number, state=TrialState.FAIL)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    return create_trial(
        state=TrialState.PRUNED,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        system_attrs=trial.system_attrs,
    )


def _repair(path: Path) -> None:
    """Removes what a kill left behind: Optuna would append to a torn line, and wait for the lock of a dead process."""
    Path(f"{path}.lock").unlink(missing_ok=True)
    with suppress(InputNotFoundError):
        content = read_bytes(path, max_bytes=_MAX_BYTES)
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.truncate(path, complete)
