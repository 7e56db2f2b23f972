"""`sweep.json`: the command of a sweep, and the jobs that it and earlier commands asked for."""

from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypedDict

from annotated_types import MaxLen

from mlxlab.errors import InputNotFoundError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.record.attempts import JobRecord
from mlxlab.record.run_file import SWEEP
from mlxlab.record.run_record import MAX_JOBS, JobIdentity

FILE = SWEEP
STUDY = "study.jsonl"  # the trials of a search
SWEPT = "several values"
_MAX_BYTES = 2**28

Texts: TypeAlias = Annotated[list[str], MaxLen(1000)]


class SweepStart(TypedDict):
    """The command of a sweep, as it was typed.

    Attributes:
        overrides: those of Hydra too, without the folder.
        sweeper: option of hydra/sweeper.
        shared: what all commands of the sweep have in common, by key, such as the objective; `SWEPT` for a key with
            several values.
        jobs: of a grid: the overrides of each, by number.
    """

    format: Literal[2]
    overrides: Texts
    config_dir: str | None
    config_name: str
    sweeper: str
    shared: dict[str, str]
    jobs: Annotated[list[Texts], MaxLen(MAX_JOBS)]


def unstarted(start: SweepStart, number: int) -> JobRecord:
    """What is known of a job of a grid that no process began."""
    return JobRecord(JobIdentity(number, start["jobs"][number]))


def untyped(start: SweepStart) -> list[str]:
    """What a folder may not decide by itself, as it is typed again."""
    from mlxlab.config.admission import may_sweep

    known = dict.fromkeys(chain(start["overrides"], *start["jobs"]))
    texts = [text for text in known if not may_sweep(text)]
    if start["config_dir"] is not None:
        texts.append(f"--config-dir={start['config_dir']}")
    if start["config_name"] != "train":
        texts.append(f"--config-name={start['config_name']}")
    return texts


def read_sweep_start(folder: Path) -> SweepStart:
    """The last command of the sweep in a folder.

    Raises:
        InputNotFoundError: the folder holds no sweep.
        DataError: its command is damaged.
    """
    path = folder / FILE
    try:
        return read_json(path, SweepStart, max_bytes=_MAX_BYTES)
    except InputNotFoundError:
        raise InputNotFoundError(f"{path}: not found; expected the folder of a sweep") from None


def write_sweep_start(folder: Path, start: SweepStart) -> None:
    write_json(folder / FILE, start, durable=True)
