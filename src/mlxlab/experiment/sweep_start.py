"""The command that started a sweep: the first line of its journal `sweep.jsonl`."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypedDict

from annotated_types import Ge, MaxLen

from mlxlab.errors import InputNotFoundError
from mlxlab.files.untrusted import open_regular, parse_json

FILE = "sweep.jsonl"
MAX_LINE = 2**20  # bytes

Texts: TypeAlias = Annotated[list[str], MaxLen(1000)]


class SweepStart(TypedDict):
    """The command of a sweep, as it was typed: `overrides` with those of Hydra, without the folder."""

    format: Literal[1]
    overrides: Texts
    config_dir: str | None
    config_name: str
    objective: str


class _FirstLine(TypedDict):
    t: Annotated[int, Ge(0)]
    sweep: SweepStart


def read_sweep_start(folder: Path) -> SweepStart:
    """The command of the sweep in a folder.

    Raises:
        InputNotFoundError: the folder holds no sweep.
        DataError: its journal is damaged.
    """
    path = folder / FILE
    try:
        with open_regular(path) as file:
            line = file.readline(MAX_LINE)
    except InputNotFoundError:
        raise InputNotFoundError(f"{path}: not found; expected the folder of a sweep") from None
    return parse_json(line.decode("utf-8", "replace"), _FirstLine, f"{path}:1")["sweep"]
