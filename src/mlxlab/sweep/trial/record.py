"""`trial.json`: what a trial is about, its runs, its looks and its verdict; and runs that need no training again."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from mlxlab.analysis.comparison import Evaluation
from mlxlab.analysis.comparison_runs import WITHOUT_EFFECT, metric_of, read_finished
from mlxlab.config.check import read_stored_config
from mlxlab.errors import ConfigError, InputNotFoundError, UserError
from mlxlab.files.atomic import without_nonfinite, write_json
from mlxlab.files.untrusted import read_json
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.record.run_file import read_run
from mlxlab.schema.constraints import Count, Fraction, Ge, Le, MaxLen, NonNegative, Seed
from mlxlab.stats.sequential import ERROR, Look, Reason, Verdict
from mlxlab.terminal.wording import percent, shown
from mlxlab.views.numbers import signed

FILE = "trial.json"
EXIT_CODES: dict[Verdict, int] = {"keep": 0, "discard": 10, "undecided": 11}
_MAX_BYTES = 4 * 2**20
MAX_PAIRS = 100  # The command allows no more.

Arm = Literal["baseline", "changed"]
# A metric is the mean of float32 numbers or of their squares.
Value = Annotated[float, Ge(-1e100), Le(1e100)]
ARMS: tuple[Arm, Arm] = ("baseline", "changed")


@dataclass(frozen=True)
class Question:
    """What a trial asks. Two trials with the same question are the same trial.

    Attributes:
        baseline: the run folder.
        overrides: of either arm, without the seed.
        evaluation: whether a run counts by its best or its last evaluation.
        min_gain: the smallest gain worth keeping; null is a tenth of the spread between baseline runs.
        looks: the numbers of pairs at the first and the last look.
        code: commit, and digest of the changes that are not committed.
    """

    baseline: str
    change: list[str]
    overrides: dict[Arm, list[str]]
    metric: str
    evaluation: Literal["best", "last"]
    min_gain: NonNegative | None
    looks: Annotated[list[Annotated[int, Ge(2)]], MaxLen(2)]
    first_seed: Seed
    code: dict[str, str | None]


@dataclass(frozen=True)
class RunRecord:
    """A run of a trial.

    Attributes:
        folder: relative to that of the trial; absolute if the run is reused.
        digest: of its config, without what does not change its results.
        value: null if it failed.
    """

    seed: Seed
    arm: Arm
    folder: str
    digest: str
    value: Value | None
    reused: bool
    seconds: NonNegative


@dataclass(frozen=True)
class LookRecord:
    """A `Look` that decided, or might have."""

    pairs: Count
    mean: Value
    low: Value
    high: Value
    min_gain: Value
    chance: Fraction
    verdict: Verdict | None
    reason: str


@dataclass
class TrialRecord:
    """`trial.json`. `verdict` is null while the trial runs, and after an interruption."""

    question: Question
    command: str  # the first one that asked it
    runs: Annotated[list[RunRecord], MaxLen(2 * MAX_PAIRS)] = field(default_factory=list)
    gains: Annotated[list[Value], MaxLen(MAX_PAIRS)] = field(default_factory=list)
    looks: Annotated[list[LookRecord], MaxLen(MAX_PAIRS)] = field(default_factory=list)
    verdict: Verdict | None = None
    reason: str = ""
    seconds: NonNegative = 0.0
    error: Fraction = ERROR
    format: Literal[1] = 1

    @property
    def by_seed(self) -> dict[int, dict[Arm, RunRecord]]:
        """The runs that have ended."""
        by_seed: dict[int, dict[Arm, RunRecord]] = {}
        for run in self.runs:
            by_seed.setdefault(run.seed, {})[run.arm] = run
        return dict(sorted(by_seed.items()))


def look_record(look: Look, min_gain: float, last: int) -> LookRecord:
    """A look at the gains, with its reason in words."""
    reasons: dict[Reason, str] = {
        "": "",
        "equal results": "all results equal those of the baseline",
        "gain": "the interval of the gain is above 0",
        "loss": "the interval of the gain is below 0",
        "gain too small": f"the interval of the gain is below the minimum {min_gain:.3g}",
        "gain unlikely": f"the probability of a keep within {last} pairs is only {percent(look.chance, 0)}",
        "no decision": f"no decision after {look.pairs} pairs",
    }
    return LookRecord(**vars(look) | {"min_gain": min_gain, "reason": reasons[look.reason]})


def read_record(folder: Path) -> TrialRecord:
    """Raises InputNotFoundError if a folder holds no trial, DataError if it is damaged."""
    return read_json(folder / FILE, TrialRecord, max_bytes=_MAX_BYTES)


def write_record(folder: Path, record: TrialRecord) -> None:
    write_json(folder / FILE, without_nonfinite(asdict(record)), durable=True)


def check_question(folder: Path, question: Question) -> None:
    """Raises ConfigError if a folder holds a trial of another question; DataError if that is damaged."""
    try:
        stored = read_record(folder).question
    except InputNotFoundError:
        return
    asked = vars(question)
    for key, before in vars(stored).items():
        if before != asked[key]:
            what = "the code has changed since" if key == "code" else f"{key} was {shown(before)}"
            raise ConfigError(f"{folder}: another trial: {what}; choose another folder=")


def describe_look(look: LookRecord) -> str:
    """One line: the gain so far, and where that stands."""
    interval = f"{signed(look.low)} to {signed(look.high)}"
    text = f"{look.pairs} pairs: gain {signed(look.mean)}, interval {interval}"
    if look.verdict is None:
        text += f", chance to be kept {percent(look.chance, 0)}"
    return text


def config_digest(config: Mapping[str, Any]) -> str:
    """Equal for resolved configs that differ only in keys that do not change the results."""
    values = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def code_of(folder: Path) -> dict[str, str | None]:
    """Commit and digest of the uncommitted changes with which a run was trained."""
    code = read_lock(folder)["code"]
    return {"commit": code["commit"], "digest": code["digest"]}


def data_of(folder: Path) -> tuple[str, str]:
    """The fingerprints of data and tokenizer of a run."""
    data = read_run(folder).data
    return data.fingerprint, data.tokenizer_fingerprint


class FinishedRuns:
    """Runs of the same code that were trained before: the baseline itself, and the baselines of other trials.

    Args:
        baseline: its run folder.
        trials: the folder of all trials.
        code: that of now, as in `code_of`.
    """

    def __init__(self, baseline: Path, trials: Path, code: dict[str, str | None]) -> None:
        self.code = code
        self._folders = dict[str, list[Path]]()
        if code["commit"] is None:
            return
        with suppress(UserError):
            digest = config_digest(read_stored_config(baseline / "inference" / "config.yaml"))
            self._folders[digest] = [baseline]
        for file in trials.glob(f"*/{FILE}"):
            with suppress(UserError):
                for run in read_record(file.parent).runs:
                    if run.arm == "baseline" and not run.reused and run.value is not None:
                        self._folders.setdefault(run.digest, []).append(file.parent / run.folder)

    def find(self, digest: str, metric: str, evaluation: Evaluation) -> tuple[Path, float] | None:
        """The folder and the value of a run with a config, if there is one."""
        for folder in self._folders.get(digest, []):
            with suppress(UserError):
                value = metric_of(read_finished(folder), metric, evaluation)
                if code_of(folder) == self.code:
                    return folder, value
        return None
