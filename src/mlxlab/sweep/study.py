"""A study: the settings and trials of a search, in an SQLite file that one process at a time writes."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, TypedDict

from mlxlab.config.hydra.search_space import Domain, Point
from mlxlab.constraints import NonNegative
from mlxlab.errors import ConfigError, DataError, WriteError
from mlxlab.files.untrusted import open_regular, parse_json

FILE = "study.db"
MAX_TRIALS = 100_000
_MAX_CHARACTERS = 1_000_000  # of one JSON document
_SCHEMA = """
create table attributes (value text not null);
create table trials (number integer primary key, record text not null);
"""
_TABLES = {("attributes", "table"), ("trials", "table")}

State = Literal["running", "complete", "failed"]


class StudySettings(TypedDict):
    """What the trials of one study share. `sampler_settings` are all that it was built with, also its defaults."""

    space: dict[str, str]  # key -> its values, in words
    overrides: list[str]  # of every trial
    objectives: dict[str, Literal["minimize", "maximize"]]
    sampler: str
    sampler_settings: dict[str, int | float | bool | None]
    optuna: str | None  # version; None for samplers without it


@dataclass(frozen=True)
class Trial:
    """One point of the search space and what came of it; `running` is also a trial whose process was killed."""

    number: int
    point: Point
    state: State = "running"
    values: list[float] = field(default_factory=list)  # of the objectives
    reason: str = ""  # why it failed
    seconds: NonNegative = 0.0
    same_as: int | None = None  # an earlier trial with the same point, whose result this one takes


class Study:
    """The trials of a search so far, by number. Each change is on the disk before the method returns."""

    def __init__(self, connection: sqlite3.Connection, settings: StudySettings, trials: list[Trial]) -> None:
        self._connection, self.settings, self.trials = connection, settings, trials

    @property
    def finished(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state != "running"]

    @property
    def running(self) -> Trial | None:
        """The trial that a process was killed in, or that is running."""
        return next((trial for trial in self.trials if trial.state == "running"), None)

    def add(self, point: Point) -> Trial:
        trial = Trial(len(self.trials), point)
        self._write(trial)
        self.trials.append(trial)
        return trial

    def finish(self, trial: Trial, values: list[float], reason: str, seconds: float, same: Trial | None) -> Trial:
        """Records a result: `values`, or without any the `reason` why the trial failed; `same` as that of another."""
        state: State = "complete" if values else "failed"
        same_as = None if same is None else same.number
        done = replace(trial, state=state, values=values, reason=reason, seconds=round(seconds, 3), same_as=same_as)
        self._write(done)
        self.trials[trial.number] = done
        return done

    def _write(self, trial: Trial) -> None:
        row = (trial.number, json.dumps(asdict(trial), allow_nan=False))
        with self._connection:
            self._connection.execute("insert or replace into trials values (?, ?)", row)


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
    trials = [parse_json(text, Trial, f"{path}: trial {number}") for number, text in enumerate(records)]
    return parse_json(attributes[0], StudySettings, f"{path}: attributes"), trials


def _texts(connection: sqlite3.Connection, column: str, rows: str) -> list[str]:
    return [str(text) for (text,) in connection.execute(f"select substr({column}, 1, {_MAX_CHARACTERS}) from {rows}")]


def _check_settings(stored: StudySettings, settings: StudySettings, path: Path) -> None:
    problems = []
    for key in dict.fromkeys([*settings["space"], *stored["space"]]):
        now, before = settings["space"].get(key), stored["space"].get(key)
        if now != before:
            problems.append(f"{key}: got {now or 'no values'}, the study searches {before or 'no such key'}")
    for override in sorted({*settings["overrides"]} ^ {*stored["overrides"]}):
        problems.append(f"{override}: {'not in' if override in settings['overrides'] else 'missing, but in'} the study")
    if settings["objectives"] != stored["objectives"]:
        now, before = (", ".join(each["objectives"]) for each in (settings, stored))
        problems.append(f"objectives: got {now}, those of the study are {before}")
    if settings["sampler"] != stored["sampler"]:
        problems.append(f"hydra.sweeper.sampler={settings['sampler']}: the study has {stored['sampler']}")
    elif settings["sampler_settings"] != stored["sampler_settings"]:
        pairs = {**stored["sampler_settings"], **settings["sampler_settings"]}.items()
        changed = [f"{name}={value}" for name, value in pairs if stored["sampler_settings"].get(name) != value]
        problems.append(f"{', '.join(changed)}: other settings of the sampler than those of the study")
    if problems:
        advice = "continue it with the same settings, or choose another hydra.sweep.dir"
        raise ConfigError("\n".join([*problems[:9], f"{path}: {advice}"]))


def _check_trials(trials: list[Trial], space: list[Domain], num_objectives: int, path: Path) -> None:
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
        if len(trial.values) != (num_objectives if trial.state == "complete" else 0):
            raise DataError(f"{where}: expected {num_objectives} values of a complete trial, got {len(trial.values)}")
        if trial.state == "running" and number < len(trials) - 1:
            raise DataError(f"{where}: only the last one may be running")
        if trial.same_as is not None and not 0 <= trial.same_as < number:
            raise DataError(f"{where}: same_as: expected an earlier trial, got {trial.same_as}")
