"""The trials of a search in `study.jsonl`: the journal of Optuna, JSON lines without a pickle.

One process at a time writes it: the lock of the sweep's folder sees to that. Each change is one line.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlxlab.config.hydra.search_space import Domain, Point
from mlxlab.constraints import Count, NonNegative
from mlxlab.errors import ConfigError, DataError
from mlxlab.experiment.sweep_start import STUDY
from mlxlab.files.untrusted import open_regular, parse_json
from mlxlab.sweep.space import distributions, point_of

_NAME = "search"
_MAX_BYTES = 2**30
_LINES_OF_NEW_STUDY = 2  # its creation, and what it asks
_QUESTION = "question"  # Attributes of a study and of its trials.
_BUDGET = "budget"
_LIMITS = "limits"
_SAME_AS = "same_as"
_STOPPED = "stopped"
_RESULT = "result"

Direction = Literal["minimize", "maximize"]
State = Literal["running", "stopped", "paused", "pruned", "finished", "failed"]
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "finished",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}


class Question(TypedDict):
    """What the trials of one study share.

    Attributes:
        space: key -> its values, in words.
        objectives: metric -> direction.
        settings: of the sampler and the pruner.
    """

    space: dict[str, str]
    objectives: dict[str, Direction]
    settings: dict[str, str]


class TrialResult(TypedDict):
    """What the run of a trial came to, or why it has no values.

    Attributes:
        step: optimizer steps so far.
        evaluations: the objective at each; null is not finite.
        seconds: of all its attempts.
    """

    values: list[float]
    reason: str
    state: Literal["finished", "failed", "paused", "pruned"]
    step: Count
    evaluations: list[float | None]
    seconds: NonNegative


@dataclass(frozen=True)
class Trial:
    """A point of the search space and what came of it. docs/how_to/sweeps.md explains the states.

    Args:
        budget: at which its job pauses; None: at the end of its run.
        rungs: the objective at each budget at which it was paused.
        limits: `StopRule.limits` of its job.
        same_as: an earlier trial with the same point, whose result this one has.
    """

    number: int
    point: Point
    state: State
    budget: int | None
    rungs: dict[int, float]
    limits: list[float | None]
    same_as: int | None
    result: TrialResult | None

    @property
    def is_ended(self) -> bool:
        """Whether it has a result; a paused one may still be promoted."""
        return self.state not in ("running", "stopped")

    @property
    def values(self) -> list[float]:
        """The objectives; none while it runs, and if it failed."""
        return self.result["values"] if self.result and self.is_ended else []

    @property
    def step(self) -> int:
        return self.result["step"] if self.result else 0

    @property
    def reason(self) -> str:
        """Why it has no values, or stopped early."""
        return self.result["reason"] if self.result else ""

    @property
    def seconds(self) -> float:
        """Those of its own run."""
        return self.result["seconds"] if self.result and self.same_as is None else 0.0


class Study:
    """The trials of a search so far.

    Raises:
        DataError: the file is not the journal of a search, or was damaged.
        InputNotFoundError: there is no file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with open_regular(path) as file:
            if file.seek(0, 2) > _MAX_BYTES:
                raise DataError(f"{path}: more than {_MAX_BYTES} bytes")
        with self._reads():
            self._storage = _journal(path)
            self.frozen = optuna.load_study(storage=self._storage, study_name=_NAME)
            self._id = self._storage.get_study_id_from_name(_NAME)

    @contextmanager
    def _reads(self) -> Iterator[None]:
        try:
            yield
        except (AssertionError, KeyError, RecursionError, TypeError, ValueError) as error:
            kind = type(error).__name__
            raise DataError(f"{self.path}: not the journal of a search ({kind})") from None

    @property
    def question(self) -> Question:
        return self._attribute(self.frozen.user_attrs, _QUESTION, Question)

    def _attribute(self, attributes: dict[str, Any], name: str, shape: Any) -> Any:
        text = json.dumps(attributes.get(name))
        return parse_json(text, shape, f"{self.path}: {name}", max_depth=20)

    def frozen_trials(self) -> list[FrozenTrial]:
        """The trials as Optuna has them."""
        with self._reads():
            return self.frozen.get_trials(deepcopy=False)

    def trials(self, space: list[Domain] | None = None) -> list[Trial]:
        """The trials by number.

        Args:
            space: that of the command; None takes the points as Optuna has them.

        Raises:
            DataError: one of them is not of the space.
        """
        return [self._trial(frozen, space) for frozen in self.frozen_trials()]

    def _trial(self, frozen: FrozenTrial, space: list[Domain] | None) -> Trial:
        attributes = frozen.user_attrs
        where = f"{self.path}: trial {frozen.number}"
        if space is not None:
            known = distributions(space)
            if frozen.distributions != known or frozen.params.keys() != known.keys():
                raise DataError(f"{where}: expected the keys and values of the search")
        budget = attributes.get(_BUDGET)
        state = _STATES.get(frozen.state, "running")
        if state == "running" and budget in frozen.intermediate_values:
            state = "paused"
        elif state == "running" and attributes.get(_STOPPED):
            state = "stopped"
        result = attributes.get(_RESULT)
        return Trial(
            number=frozen.number,
            point=dict(frozen.params) if space is None else point_of(frozen.params, space),
            state=state,
            budget=budget,
            rungs=frozen.intermediate_values,
            limits=attributes.get(_LIMITS, []),
            same_as=attributes.get(_SAME_AS),
            result=result and self._attribute(attributes, _RESULT, TrialResult),
        )

    def add(
        self,
        proposed: FrozenTrial,
        budget: int | None,
        limits: list[float | None],
        same_as: int | None,
    ) -> int:
        """Adds a trial with the point of a proposal; returns its number."""
        attributes = {_BUDGET: budget, _LIMITS: limits, _SAME_AS: same_as}
        trial = create_trial(
            state=TrialState.RUNNING,
            params=proposed.params,
            distributions=proposed.distributions,
            system_attrs=proposed.system_attrs,
            user_attrs=attributes,
        )
        self.frozen.add_trial(trial)
        return len(self.frozen_trials()) - 1

    def set_budget(self, number: int, budget: int | None) -> None:
        """A paused trial continues, to pause again at another budget, or at the end of its run."""
        self._set(number, _BUDGET, budget)

    def set_stopped(self, number: int, is_stopped: bool) -> None:
        """A signal stopped a trial, which continues another time."""
        if bool(self.frozen_trials()[number].user_attrs.get(_STOPPED)) != is_stopped:
            self._set(number, _STOPPED, is_stopped)

    def end(self, number: int, result: TrialResult) -> None:
        """Records the result of a trial. What is told last ends it, so that a kill in between costs nothing."""
        self._set(number, _RESULT, result)
        state = result["state"]
        if state == "finished":
            self.frozen.tell(number, result["values"])
        elif state == "failed":
            self.frozen.tell(number, state=TrialState.FAIL)
        else:
            self._report(number, result)
            if state == "pruned":
                self.frozen.tell(number, state=TrialState.PRUNED)

    def _report(self, number: int, result: TrialResult) -> None:
        """The objective at the budget of a paused trial, or at the last step of a pruned one."""
        step = result["step"]
        if result["state"] == "paused":
            step = self.frozen_trials()[number].user_attrs[_BUDGET]
        self._storage.set_trial_intermediate_value(
            self._trial_id(number), step, result["values"][0]
        )

    def _set(self, number: int, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._trial_id(number), name, value)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def open_study(folder: Path, question: Question) -> Study:
    """The study in the folder of a search, for writing; a new one if there is none. The caller holds its lock.

    Raises:
        ConfigError: it asks another question.
        DataError: it was damaged.
    """
    path = folder / STUDY
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not _repair(path):
        new = optuna.create_study(
            storage=_journal(path),
            study_name=_NAME,
            directions=[*question["objectives"].values()],
        )
        new.set_user_attr(_QUESTION, question)
    study = Study(path)
    _check_question(study.question, question, path)
    return study


def _journal(path: Path) -> JournalStorage:
    """A journal whose lock is a file: of a process that was killed a link would stay, which no folder of ours may hold."""
    return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))


def _repair(path: Path) -> bool:
    """Removes what a kill left behind; returns whether there is a study.

    Optuna would append to a torn last line, and wait for the lock of a process that is gone.
    """
    Path(f"{path}.lock").unlink(missing_ok=True)
    if not path.exists() and not path.is_symlink():
        return False
    with open_regular(path) as file:
        content = file.read(_MAX_BYTES)
    complete = content[: content.rfind(b"\n") + 1]
    if complete.count(b"\n") < _LINES_OF_NEW_STUDY:
        path.unlink()  # Killed before the study was complete: nothing is lost.
        return False
    if complete != content:
        os.truncate(path, len(complete))
    return True


def _check_question(stored: Question, asked: Question, path: Path) -> None:
    """Raises ConfigError for a search with another space, other objectives or another method."""
    before = _by_key(stored)
    now = _by_key(asked)
    problems = []
    for key in dict.fromkeys([*now, *before]):
        if now.get(key) != before.get(key):
            text = f"got {now.get(key, 'no values')}, the study has {before.get(key, 'no values')}"
            problems.append(f"{key}: {text}")
    if problems:
        advice = f"continue {path.parent} with the same settings, or choose another hydra.sweep.dir"
        raise ConfigError("\n".join(f"{problem}; {advice}" for problem in problems[:10]))


def _by_key(question: Question) -> dict[str, str]:
    objectives = [f"{direction} {name}" for name, direction in question["objectives"].items()]
    return {**question["space"], "objective": ", ".join(objectives), **question["settings"]}
