"""The pairs of a trial: starts their runs, reads their results, and looks at the gains in the order of the seeds."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from mlxlab.analysis.comparison_runs import run_value
from mlxlab.analysis.trial.finished_runs import FinishedRuns, config_digest, data_of
from mlxlab.analysis.trial.record import Arm, RunRecord, TrialRecord, describe_look, write_record
from mlxlab.analysis.trial.sequential import look
from mlxlab.config.hydra.compose import without_hydra
from mlxlab.config.hydra.job import job_config
from mlxlab.errors import DivergenceError, UserError
from mlxlab.metric_names import lower_is_better
from mlxlab.sweep.job_journal import Job, JobJournal
from mlxlab.sweep.launcher.jobs import ComposedJob, JobResult, Jobs, SweepContext, resumed

ARMS: tuple[Arm, Arm] = ("baseline", "changed")
MIN_GAIN = 0.1  # of the standard deviation between baseline runs, where none is given
_BUG, _TIMEOUT, _SIGNAL = 70, 124, 128
_NO_VALUE = 1  # the exit code of a run whose objective is not finite


class Planned(NamedTuple):
    """A run of the trial that can be started."""

    job: ComposedJob
    digest: str
    data: Any  # config of the data set


class Pairs:
    """The runs of a trial; run 2 i is the baseline of pair i, run 2 i + 1 is the changed one.

    Args:
        folder: of the trial.
        record: of the trial so far; kept up to date, here and in its file.
        show: prints a line of progress.
    """

    def __init__(
        self,
        folder: Path,
        record: TrialRecord,
        journal: JobJournal,
        context: SweepContext,
        launcher: Jobs,
        show: Callable[[str], None],
    ) -> None:
        self.folder, self.record, self.journal, self.show = folder, record, journal, show
        self.context, self.launcher, self.question = context, launcher, record["question"]
        self.finished = FinishedRuns(
            Path(self.question["baseline"]), folder.parent, self.question["code"]
        )
        first = self.question["first_seed"]
        self.ended = {
            2 * (run["seed"] - first) + ARMS.index(run["arm"]): run for run in record["runs"]
        }
        self.planned: dict[int, Planned] = {}
        self.not_reused = set[int]()
        self.running = set[int]()

    def run(self, seconds: float | None) -> None:
        """Trains pairs until the gains decide, `seconds` have passed, or a signal stops the launcher.

        Raises:
            UserError: a run failed for a reason that says nothing of the change.
        """
        start, before = time.monotonic(), self.record["seconds"]
        if self.record["verdict"] in ("keep", "discard"):
            return
        self.record |= {"gains": [], "looks": [], "verdict": None, "reason": ""}
        self._look()
        while self.record["verdict"] is None:
            late = seconds is not None and time.monotonic() - start > seconds
            self._start(is_late=late)
            if self.running:
                self._end(self.launcher.wait())
            elif late or self.launcher.stop_signal:
                break
            self._look()
            self.record["seconds"] = round(before + time.monotonic() - start, 3)
            write_record(self.folder, self.record)
        if self.record["verdict"] is None:
            stopped = "interrupted; the same command continues"
            reason = (
                stopped
                if self.launcher.stop_signal
                else f"no decision within the {seconds:g} seconds of budget="
            )
            self.record |= {
                "verdict": None if self.launcher.stop_signal else "undecided",
                "reason": reason,
            }
        write_record(self.folder, self.record)

    def _start(self, *, is_late: bool) -> None:
        """Starts runs while the launcher takes some; a baseline that was trained before only if it cannot be reused."""
        last = self.question["looks"][-1]
        for number in range(2 * last):
            if number in self.ended or number in self.running:
                continue
            begins_pair = not {number ^ 1} & (self.running | self.ended.keys())
            if not self.launcher.num_free or self.launcher.stop_signal or (is_late and begins_pair):
                return
            planned = self._plan(number)
            if number % 2 == 0 and number not in self.not_reused and self._reuse(number, planned):
                continue
            self.running.add(number)
            self.launcher.start_composed(planned.job)

    def _plan(self, number: int) -> Planned:
        """Composes a run; one that was interrupted continues."""
        overrides = [*self.question["overrides"][ARMS[number % 2]], f"seed={self._seed(number)}"]
        job = self.context.compose(overrides, number)
        with job_config(job.config):
            config: Any = OmegaConf.to_container(without_hydra(job.config), resolve=True)
        planned = Planned(job, config_digest(config), config["data"])
        if (job.folder / "manifest.json").is_file():
            planned = planned._replace(
                job=self.context.compose(resumed(overrides, job.folder), number)
            )
        path = job.folder.relative_to(self.folder).as_posix()
        self.journal.record(
            Job(number, overrides, planned.digest, "running", "", None, 1, 0.0, None, path)
        )
        self.planned[number] = planned
        return planned

    def _reuse(self, number: int, planned: Planned) -> bool:
        question = self.question
        run = self.finished.find(planned.digest, question["metric"], question["evaluation"])
        if run is None:
            return False
        folder, value = run
        self._add(number, str(folder), value, reused=True)
        job = self.journal.jobs[number]
        self.journal.record(replace(job, state="skipped", reason=f"same as {folder}", value=value))
        self.show(
            f"seed {self._seed(number)} baseline: {question['metric']} {value:.6g}, trained before: {folder}"
        )
        return True

    def _end(self, result: JobResult) -> None:
        """Records what came of a run. Raises UserError if it failed for a reason that says nothing of the change."""
        number, question = result.number, self.question
        self.running.discard(number)
        job = replace(
            self.journal.jobs[number],
            state=result.state,
            reason=result.reason,
            exit_code=result.exit_code,
        )
        self.journal.record(replace(job, seconds=round(result.seconds, 3), value=result.value))
        if result.state == "stopped":
            return
        name, value = f"seed {self._seed(number)} {ARMS[number % 2]}", None
        if result.state == "finished":
            value = run_value(result.folder, question["metric"], question["evaluation"])
            self.show(f"{name}: {question['metric']} {value:.6g} after {result.seconds:.1f} s")
        else:
            is_of_change = result.exit_code in (_NO_VALUE, DivergenceError.exit_code, _BUG) or (
                result.exit_code == _TIMEOUT or result.exit_code > _SIGNAL
            )
            if number % 2 == 0 or not is_of_change:
                error = UserError(f"{name}: {result.reason} ({result.folder})")
                error.exit_code = result.exit_code
                raise error
            self.record |= {"verdict": "discard", "reason": f"{name} failed: {result.reason}"}
            self.show(f"{name}: failed: {result.reason}")
        folder = result.folder.relative_to(self.folder).as_posix()
        self._add(number, folder, value, seconds=result.seconds)

    def _look(self) -> None:
        """Looks at the gains of the pairs that are complete, up to the first that is not."""
        first, last = self.question["looks"][0], self.question["looks"][-1]
        while self.record["verdict"] is None:
            number = 2 * len(self.record["gains"])
            before, after = (self.ended.get(each) for each in (number, number + 1))
            if before is None or after is None or before["value"] is None or after["value"] is None:
                return
            if before["reused"] and not self._is_same_data(number, before, after):
                self.not_reused.add(number)
                self.record["runs"].remove(self.ended.pop(number))
                return
            sign = -1 if lower_is_better(self.question["metric"]) else 1
            self.record["gains"].append(sign * (after["value"] - before["value"]) + 0.0)  # no -0.0
            current = look(self.record["gains"], self._min_gain(), first, last)
            if current.pairs >= first:
                fields: Any = asdict(current)
                self.record["looks"].append(fields)
                self.record |= {"verdict": current.verdict, "reason": current.reason}
                self.show(describe_look(current))

    def _min_gain(self) -> float:
        if (given := self.question["min_gain"]) is not None:
            return given
        values = [self.ended[2 * pair]["value"] or 0.0 for pair in range(len(self.record["gains"]))]
        return MIN_GAIN * stdev(values) if len(values) > 1 else 0.0

    def _is_same_data(self, number: int, before: RunRecord, after: RunRecord) -> bool:
        """Whether a run that was trained before saw the data of now, as far as the changed run tells."""
        plans = [self.planned.get(each) for each in (number, number + 1)]
        if plans[0] is None or plans[1] is None or plans[0].data != plans[1].data:
            return True
        return data_of(Path(before["folder"])) == data_of(self.folder / after["folder"])

    def _add(
        self,
        number: int,
        folder: str,
        value: float | None,
        *,
        reused: bool = False,
        seconds: float = 0.0,
    ) -> None:
        """Adds a run that has ended to the record."""
        run = RunRecord(
            seed=self._seed(number),
            arm=ARMS[number % 2],
            folder=folder,
            digest=self.planned[number].digest,
            value=value,
            reused=reused,
            seconds=round(seconds, 3),
        )
        self.ended[number] = run
        self.record["runs"].append(run)

    def _seed(self, number: int) -> int:
        return self.question["first_seed"] + number // 2
