"""Ensembles on disk: `ensemble.json` names the run folders of the members."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from mlxlab.errors import DataError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json

FILE = "ensemble.json"

Combine = Literal["logits", "probabilities"]


class EnsembleFile(TypedDict):
    """The contents of `ensemble.json`."""

    format: Literal[1]
    members: list[str]  # run folders or checkpoints, relative to the file's folder or absolute
    combine: Combine


def save_ensemble(folder: Path, members: Sequence[Path], combine: Combine = "logits") -> None:
    """Writes `ensemble.json`; members inside the folder are named relative to it."""
    names = [str(m.relative_to(folder) if m.is_relative_to(folder) else m.absolute()) for m in members]
    write_json(folder / FILE, {"format": 1, "members": names, "combine": combine})


def read_ensemble(folder: Path) -> tuple[list[Path], Combine]:
    """The members of the ensemble in a folder, and what is averaged.

    Raises:
        InputNotFoundError: the folder has no `ensemble.json`. DataError: it is damaged.
    """
    saved = read_json(folder / FILE, EnsembleFile)
    if not saved["members"]:
        raise DataError(f"{folder / FILE}: expected at least one member")
    return [folder / name for name in saved["members"]], saved["combine"]


def find_run_dir(path: Path) -> Path | None:
    """The run folder, or folder of an ensemble, that a path is or lies in; None if there is none."""
    path = path.expanduser().absolute()
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "inference" / "config.yaml").is_file() or (folder / FILE).is_file():
            return folder
    return None


def config_dir_of(run: Path) -> Path:
    """The `inference` folder of a run, or of the first member of an ensemble."""
    if not (run / FILE).is_file():
        return run / "inference"
    first = find_run_dir(read_ensemble(run)[0][0])
    return config_dir_of(first or run / "missing")
