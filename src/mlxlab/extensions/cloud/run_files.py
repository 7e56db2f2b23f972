"""The files of a run folder from which its run can be resumed elsewhere, for each of its checkpoints."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from mlxlab.checkpoint.manifest import MANIFEST, CorruptCheckpointError, read_manifest
from mlxlab.checkpoint.names import EMERGENCY, FOLDER, NAME, REPLACED, folder_name, step_of
from mlxlab.errors import CheckpointUnavailableError
from mlxlab.extensions.cloud.object_store import is_safe_key

BASE = "base"
TOP = ""
# By folder, what a run writes; nothing else is copied, for a run folder may be any folder
FILES = {
    TOP: r"(manifest|resume_changes|transfer|metrics|samples|verify)\.json|journal(-[0-9a-f]{32})?\.jsonl"
    r"|(metrics|mistakes|per_class)\.csv|summary\.md|run\.lock",
    "plots": r"(analysis|confusion|learning_curve|memory|precision_recall|predicted|reliability|vocabulary)\.png",
}
LASTING = {
    "analysis": r"snapshot-[0-9a-f-]+\.safetensors",
    "example_losses": r"\d{9,}\.arrows",
}  # may be many
WHOLE = "inference"  # also holds what a data set of the user's own saves


class RunFiles:
    """The checkpoints of a run folder as a `Source` of uploads: each with all that a resume needs, and the best one.

    Args:
        table: the file of `callbacks.csv`, if there is one.
    """

    def __init__(self, folder: Path, table: Path | None = None) -> None:
        self.folder, self.table = folder, table

    def names(self) -> list[str]:
        try:
            names = os.listdir(self.folder / FOLDER)
        except FileNotFoundError:
            return []
        return sorted(filter(is_checkpoint, names), key=order, reverse=True)

    def mark(self, name: str) -> str:
        return f"{FOLDER}/{name}/{MANIFEST}"

    def files(self, name: str) -> tuple[list[str], list[str]]:
        checkpoints = {name, self._best(name)} & {*self.names()} | {name}
        held = [path for each in sorted(checkpoints) for path in self._files_in(f"{FOLDER}/{each}")]
        held += self._files_in(BASE) if (self.folder / BASE).is_dir() else []
        replaced = {
            path for folder, names in FILES.items() for path in self._matches(folder, names)
        }
        if (
            self.table is not None
            and is_regular(self.table)
            and self.table.is_relative_to(self.folder)
        ):
            replaced.add(self.table.relative_to(self.folder).as_posix())
        for parent, folders, names in os.walk(self.folder / WHOLE):
            folders[:] = [each for each in folders if not each.startswith(".")]
            replaced |= {Path(parent, each).relative_to(self.folder).as_posix() for each in names}
        held += sorted(filter(is_safe_key, replaced))
        return held, [
            path for folder, names in LASTING.items() for path in self._matches(folder, names)
        ]

    def retained(self, names: Sequence[str], keep: int | None) -> list[str]:
        """The newest regular ones; an emergency checkpoint until there is a newer regular one."""
        ordered = sorted(names, key=order, reverse=True)
        regular = [name for name in ordered if EMERGENCY not in name]
        newest = order(regular[0]) if regular else (-1, False)
        return [
            name
            for name in ordered
            if name in regular[:keep] or (EMERGENCY in name and order(name) > newest)
        ]

    def superseded(self, names: Sequence[str]) -> list[str]:
        newest = max((order(name)[0] for name in self.names()), default=-1)
        return [name for name in names if not is_checkpoint(name) or order(name)[0] > newest]

    def _best(self, name: str) -> str:
        try:
            return folder_name(read_manifest(self.folder / FOLDER / name)["best_step"])
        except (CorruptCheckpointError, CheckpointUnavailableError):
            return ""

    def _matches(self, folder: str, names: str) -> list[str]:
        paths = (self.folder / folder).iterdir() if (self.folder / folder).is_dir() else ()
        matches = [
            path for path in paths if re.fullmatch(names, path.name, re.ASCII) and is_regular(path)
        ]
        return [path.relative_to(self.folder).as_posix() for path in matches]

    def _files_in(self, folder: str) -> list[str]:
        return [
            f"{folder}/{name}"
            for name in sorted(os.listdir(self.folder / folder))
            if is_safe_key(name)
        ]


def is_checkpoint(name: str) -> bool:
    return NAME.fullmatch(name) is not None and REPLACED not in name


def is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def order(name: str) -> tuple[int, bool]:
    """Of checkpoints by their names, the newest last; of one step the regular one after that of a signal."""
    return step_of(Path(name)), EMERGENCY not in name
