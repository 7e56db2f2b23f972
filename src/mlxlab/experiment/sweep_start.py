"""The command of a sweep: the first line of its journal `sweep.jsonl`, or a later one where a command added jobs."""

from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

from annotated_types import Ge, MaxLen

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import open_regular, parse_json

FILE = "sweep.jsonl"
MAX_LINE = 2**20  # bytes
_KEY_END = 60  # bytes of a line in which the key of a command stands, after the time

Texts: TypeAlias = Annotated[list[str], MaxLen(1000)]


class SweepStart(TypedDict):
    """The command of a sweep, as it was typed: `overrides` with those of Hydra, without the folder."""

    format: Literal[1]
    overrides: Texts
    config_dir: str | None
    config_name: str
    objective: str


class _Line(TypedDict):
    t: Annotated[int, Ge(0)]
    sweep: NotRequired[SweepStart]
    job: NotRequired[dict[str, object]]


def of_sweep(folder: Path) -> str:
    """What a message on a folder that holds no run ends with, if it is that of a sweep."""
    if not (folder / FILE).is_file():
        return ""
    return f"; this is the folder of a sweep: sweep.resume={folder} continues it, and its jobs are in {folder}/0, ..."


def untyped(start: SweepStart) -> list[str]:
    """What a journal may not decide by itself, as it is typed again."""
    from mlxlab.config.admission import may_sweep

    texts = [text for text in start["overrides"] if not may_sweep(text)]
    if start["config_dir"] is not None:
        texts.append(f"--config-dir={start['config_dir']}")
    if start["config_name"] != "train":
        texts.append(f"--config-name={start['config_name']}")
    return texts


def read_sweep_start(folder: Path) -> SweepStart:
    """The last command of the sweep in a folder.

    Raises:
        InputNotFoundError: the folder holds no sweep.
        DataError: its journal is damaged.
    """
    path = folder / FILE
    start: SweepStart | None = None
    try:
        with open_regular(path) as file:
            while (line := file.readline(MAX_LINE)).endswith(b"\n"):
                if start is None or b'"sweep"' in line[:_KEY_END]:
                    text = line.decode("utf-8", "replace")
                    start = parse_json(
                        text, _Line, f"{path}:{1 if start is None else 'sweep'}"
                    ).get("sweep", start)
                    if start is None:
                        break
    except InputNotFoundError:
        raise InputNotFoundError(f"{path}: not found; expected the folder of a sweep") from None
    if start is None:
        raise DataError(f"{path}:1: expected the start of a sweep")
    return start
