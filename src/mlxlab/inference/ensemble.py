"""Ensembles on disk: `ensemble.json` names the run folders of the members, beside itself or anywhere."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.models.ensemble import Ensemble

if TYPE_CHECKING:
    from mlxlab.inference.restore import RestoredModel

FILE = "ensemble.json"


def save_ensemble(folder: Path, members: Sequence[Path], combine: str = "logits") -> None:
    """Writes what `restore` of the folder needs; members inside it are named relative to it."""
    names = [str(m.relative_to(folder) if m.is_relative_to(folder) else m.absolute()) for m in members]
    text = json.dumps({"format": 1, "members": names, "combine": combine}, indent=1)
    temporary = folder / f".{FILE}"
    temporary.write_text(text + "\n")
    temporary.replace(folder / FILE)


def restore_ensemble(folder: Path, restore: Callable[[Path, Path | None], "RestoredModel"]) -> "RestoredModel":
    """The ensemble of a folder as one model; the rest is that of the first member.

    Raises:
        DataError: ensemble.json is damaged, or the members do not belong together.
    """
    path = folder / FILE
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        members, combine = [folder / str(name) for name in saved["members"]], saved["combine"]
        if not members or combine not in ("logits", "probabilities"):
            raise ValueError("no members")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}:1:1: is damaged ({type(error).__name__}: {str(error)[:100]})") from None
    parts = [restore_from(member, restore) for member in members]
    first = parts[0]
    for member, part in zip(members, parts, strict=True):
        if _language(part) != _language(first):
            raise DataError(f"{path}:1:1: {member} reads or answers otherwise than {members[0]}")
    return replace(first, model=Ensemble([part.model for part in parts], combine=combine))  # type: ignore[arg-type]


def restore_from(path: Path, restore: Callable[[Path, Path | None], "RestoredModel"]) -> "RestoredModel":
    """What a run folder (its best checkpoint), a checkpoint or the folder of an ensemble holds."""
    run = find_run_dir(path)
    if run is None:
        raise InputNotFoundError(f"{path}: no run folder, checkpoint or ensemble")
    return restore(run, None if path.absolute() == run else path)


def find_run_dir(path: Path) -> Path | None:
    """The run folder, or folder of an ensemble, that a path is or lies in; None if there is none."""
    path = path.expanduser().absolute()
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "restore" / "config.yaml").is_file() or (folder / FILE).is_file():
            return folder
    return None


def config_dir_of(run: Path) -> Path:
    """The `restore` folder of a run, or of the first member of an ensemble."""
    if not (run / FILE).is_file():
        return run / "restore"
    first = find_run_dir(run / str(json.loads((run / FILE).read_text())["members"][0]))
    return config_dir_of(first or run / "missing")


def _language(part: "RestoredModel") -> tuple[Any, ...]:
    return part.encoder.tokenizer.fingerprint, part.encoder.task
