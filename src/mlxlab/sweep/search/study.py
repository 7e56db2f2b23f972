"""A study: the settings and trials of a search, in an SQLite file that one process at a time writes."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, TypedDict

from mlxlab.config.hydra.search_space import Domain, Point
from mlxlab.errors import ConfigError, DataError, WriteError
from mlxlab.files.untrusted import open_regular, parse_json
from mlxlab.sweep.search.trial import Result, Trial, TrialResult

FILE = "study.db"
MAX_TRIALS = 100_000
_MAX_CHARACTERS = 1_000_000  # of one JSON document
_SCHEMA = """
create table attributes (value text not null);
create table trials (number integer primary key, record text not null);
"""
_TABLES = {("attributes", "table"), ("trials", "table")}


class StudySettings(TypedDict):
    """What the trials of one study share. `sampler_settings` are all that it was built with, also its defaults."""

    space: dict[str, str]  # key -> its values, in words
    overrides: list[str]  # of every trial
    objectives: dict[str, Literal["minimize", "maximize"]]
    sampler: str
    sampler_settings: dict[str, int | float | bool | None]
    pruner: str
    pruner_settings: dict[str, int | str | None]
    optuna: str | None  # version; None for samplers without it


class Study:
    """The trials of a search so far, by number. Each change is on the disk before the method returns."""

    def __init__(
        self, connection: sqlite3.Connection, settings: StudySettings, trials: list[Trial]
    ) -> None:
        self._connection, self.settings, self.trials = connection, settings, trials
        self.num_results = sum(len(trial.results) for trial in trials)

    @property
    def ended(self) -> list[Trial]:
        """Those with a result: paused ones too, though they may be promoted."""
        return [trial for trial in self.trials if trial.is_ended]

    @property
    def unfinished(self) -> list[Trial]:
        """Those that run, were stopped by a signal, or whose process was killed."""
        return [trial for trial in self.trials if not trial.is_ended and trial.same_as is None]

    def add(
        self, point: Point, budget: int | None = None, limits: Sequence[float | None] = ()
    ) -> Trial:
        """A trial to run up to a budget; one whose point an earlier trial has takes the result of that."""
        same = next(
            (trial for trial in self.trials if trial.point == point and trial.same_as is None), None
        )
        same_as = None if same is None else same.number
        trial = Trial(
            len(self.trials),
            point,
            "running",
            [],
            "",
            0.0,
            same_as,
            budget,
            [*limits],
            self.num_results,
        )
        trial = trial if same is None else self._copied(same, trial)
        self._write([trial])
        self.trials.append(trial)
        return trial

    def promote(self, trial: Trial, budget: int | None) -> Trial:
        """A paused trial continues, to pause again at `budget`, or to the end of its run."""
        return self._record(replace(trial, state="running", values=[], budget=budget))

    def stop(self, trial: Trial, seconds: float) -> Trial:
        """A signal stopped a trial, which continues another time."""
        return self._record(
            replace(trial, state="stopped", seconds=round(trial.seconds + seconds, 3))
        )

    def restart(self, trial: Trial) -> Trial:
        """A trial continues that was stopped, or killed."""
        return self._record(replace(trial, state="running"))

    def finish(self, trial: Trial, result: TrialResult, seconds: float) -> Trial:
        """Records the result of a trial, and of those with the same point."""
        one = Result(self._next_order(), trial.budget, result.values, result.step)
        return self._record(
            replace(
                trial,
                state=result.state if result.values else "failed",
                values=result.values,
                reason=result.reason,
                seconds=round(max(trial.seconds + seconds, result.seconds), 3),
                results=[*trial.results, one],
                evaluations=[*result.evaluations],
            )
        )

    def _record(self, trial: Trial) -> Trial:
        changed = [
            trial,
            *(self._copied(trial, other) for other in self.trials if other.same_as == trial.number),
        ]
        self._write(changed)
        for each in changed:
            self.trials[each.number] = each
        return trial

    def _copied(self, source: Trial, trial: Trial) -> Trial:
        """A trial with the point of `source` and its result, which counts as one of its own."""
        results = trial.results
        if source.is_ended:
            results = [*results, replace(source.results[-1], order=self._next_order())]
        return replace(
            trial, state=source.state, values=source.values, reason=source.reason, results=results
        )

    def _next_order(self) -> int:
        self.num_results += 1
        return self.num_results - 1

    def _write(self, trials: list[Trial]) -> None:
        rows = [(trial.number, json.dumps(asdict(trial), allow_nan=False)) for trial in trials]
        with self._connection:
            self._connection.executemany("insert or replace into trials values (?, ?)", rows)


@contextmanager
def open_study(path: Path, settings: StudySettings, space: list[Domain]) -> Iterator[Study]:
    """Opens the study at `path`, or creates it; the caller holds the lock of its folder.

    Raises:
        ConfigError: its search space, sampler, objectives or overrides are not those of `settings`.
        DataError: the file is not a study, or was damaged.
        WriteError: it cannot be written.
    """
    try:
        with closing(_connect(path, settings)) as connection:
            stored, trials = _read(connection, path)
            _check_settings(stored, settings, path)
            _check_trials(trials, space, len(settings["objectives"]), path)
            yield Study(connection, stored, trials)
    except sqlite3.OperationalError as error:
        raise WriteError(f"{path}: {error}") from None
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: not a study ({error})") from None


def read_study(path: Path) -> tuple[StudySettings, list[Trial]]:
    """Settings and trials, which another process may be adding to.

    Raises:
        InputNotFoundError: there is no file.
        DataError: it is not a study, or was damaged.
    """
    with open_regular(path):
        pass
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            connection.execute("pragma trusted_schema = off")
            return _read(connection, path)
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: not a study ({error})") from None


def _connect(path: Path, settings: StudySettings) -> sqlite3.Connection:
    if path.exists() or path.is_symlink():
        with open_regular(path):
            pass
    connection = sqlite3.connect(path)
    connection.execute("pragma trusted_schema = off")
    if not connection.execute("select count(*) from sqlite_schema").fetchone()[0]:
        with connection:
            connection.executescript(f"begin; {_SCHEMA}")
            connection.execute("insert into attributes values (?)", (json.dumps(settings),))
    return connection


def _read(connection: sqlite3.Connection, path: Path) -> tuple[StudySettings, list[Trial]]:
    if set(connection.execute("select name, type from sqlite_schema")) != _TABLES:
        raise DataError(f"{path}: not a study (expected the tables attributes and trials)")
    attributes = _texts(connection, "value", "attributes limit 2")
    records = _texts(connection, "record", f"trials order by number limit {MAX_TRIALS + 1}")
    if len(attributes) != 1 or len(records) > MAX_TRIALS:
        raise DataError(f"{path}: expected one row of attributes and at most {MAX_TRIALS:,} trials")
    trials = [
        parse_json(text, Trial, f"{path}: trial {number}") for number, text in enumerate(records)
    ]
    return parse_json(attributes[0], StudySettings, f"{path}: attributes"), trials


def _described(objectives: Mapping[str, str]) -> str:
    return ", ".join(f"{direction} {name}" for name, direction in objectives.items())


def _texts(connection: sqlite3.Connection, column: str, rows: str) -> list[str]:
    return [
        str(text)
        for (text,) in connection.execute(
            f"select substr({column}, 1, {_MAX_CHARACTERS}) from {rows}"
        )
    ]


def _check_settings(stored: StudySettings, settings: StudySettings, path: Path) -> None:
    problems = [*_changed_questions(stored, settings), *_changed_methods(stored, settings)]
    if problems:
        advice = f"continue {path.parent} with the same settings, or choose another hydra.sweep.dir"
        raise ConfigError(
            "\n".join([*problems[:9], advice] if problems[1:] else [f"{problems[0]}; {advice}"])
        )


def _changed_questions(stored: StudySettings, settings: StudySettings) -> Iterator[str]:
    """Differences of the space, the objectives and the overrides."""
    for key in dict.fromkeys([*settings["space"], *stored["space"]]):
        now, before = settings["space"].get(key), stored["space"].get(key)
        if now != before:
            yield f"{key}: got {now or 'no values'}, the study searches {before or 'no such key'}"
    has_objectives = settings["objectives"] == stored["objectives"]
    if not has_objectives:
        now, before = (_described(each["objectives"]) for each in (settings, stored))
        yield f"objective: got {now}, that of the study is {before}"
    for override in sorted({*settings["overrides"]} ^ {*stored["overrides"]}):
        if has_objectives or not override.startswith("objective="):  # which is named already
            what = "not in" if override in settings["overrides"] else "missing, but in"
            yield f"{override}: {what} the study"


def _changed_methods(stored: StudySettings, settings: StudySettings) -> Iterator[str]:
    """Differences of the sampler and the pruner."""
    if settings["sampler"] != stored["sampler"]:
        yield f"hydra.sweeper.sampler={settings['sampler']}: the study has {stored['sampler']}"
    elif settings["sampler_settings"] != stored["sampler_settings"]:
        pairs = {**stored["sampler_settings"], **settings["sampler_settings"]}.items()
        changed = [
            f"{name}={value}"
            for name, value in pairs
            if stored["sampler_settings"].get(name) != value
        ]
        yield f"{', '.join(changed)}: other settings of the sampler than those of the study"
    for key in sorted({"pruner", *settings["pruner_settings"], *stored["pruner_settings"]}):
        new, old = (
            {"pruner": each["pruner"], **each["pruner_settings"]}.get(key)
            for each in (settings, stored)
        )
        if new != old:
            yield f"hydra.sweeper.{key}={new}: the study has {old}"


def _check_trials(
    trials: list[Trial], space: list[Domain], num_objectives: int, path: Path
) -> None:
    domains = {domain.key: domain for domain in space}
    for number, trial in enumerate(trials):
        where = f"{path}: trial {number}"
        if trial.number != number:
            raise DataError(f"{where}: missing; got number {trial.number}")
        if trial.point.keys() != domains.keys():
            raise DataError(f"{where}: expected the keys {', '.join(domains)}")
        for key, value in trial.point.items():
            if not domains[key].contains(value):
                raise DataError(f"{where}: {key}: expected {domains[key]}, got {str(value)[:60]}")
        _check_results(trial, num_objectives, where)
        if trial.same_as is not None and not 0 <= trial.same_as < number:
            raise DataError(f"{where}: same_as: expected an earlier trial, got {trial.same_as}")
    orders = sorted(result.order for trial in trials for result in trial.results)
    if orders != [*range(len(orders))]:
        raise DataError(f"{path}: expected results numbered from 0, got {str(orders)[:60]}")


def _check_results(trial: Trial, num_objectives: int, where: str) -> None:
    expected = num_objectives if trial.is_ended and trial.state != "failed" else 0
    if len(trial.values) != expected:
        raise DataError(
            f"{where}: expected {expected} values of a {trial.state} trial, got {len(trial.values)}"
        )
    if trial.is_ended and (not trial.results or trial.results[-1].values != trial.values):
        raise DataError(f"{where}: its last result is not that of the trial")
    for result in trial.results:
        if len(result.values) not in (0, num_objectives):
            raise DataError(
                f"{where}: results: expected {num_objectives} values, got {len(result.values)}"
            )
