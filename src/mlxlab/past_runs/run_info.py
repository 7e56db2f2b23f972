"""What `info run=` says of a run folder: its record and its checkpoints."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mlxlab.checkpoint.frozen_weights import FOLDER as BASE_FOLDER
from mlxlab.checkpoint.listing import CheckpointEntry, is_exported, list_checkpoints
from mlxlab.checkpoint.names import FOLDER
from mlxlab.errors import InputNotFoundError
from mlxlab.files.atomic import without_nonfinite
from mlxlab.past_runs.collect_record import collect_record
from mlxlab.terminal.program import quoted
from mlxlab.terminal.redact import redact
from mlxlab.views.commands import next_commands, typed_commands
from mlxlab.views.run_view import RunView
from mlxlab.views.tables import Column, Table


@dataclass
class RunInfo:
    """A run folder. `frozen_bytes` are those of the weights that all checkpoints share."""

    view: RunView
    checkpoints: list[CheckpointEntry]
    frozen_bytes: int

    def as_json(self) -> str:
        """The record and more, without credentials; null for numbers that are not finite."""
        tree = asdict(self.view.record) | {
            "folder": str(self.view.folder),
            "checkpoints": [asdict(each) | {"path": str(each.path)} for each in self.checkpoints],
            "frozen_bytes": self.frozen_bytes,
            "typed": typed_commands(self.view),
            "next": next_commands(self.view),
        }
        return redact(json.dumps(without_nonfinite(tree), indent=1))

    def as_text(self) -> str:
        from mlxlab.views.pages import info_lines

        return info_lines(self.view, self.frozen_bytes, self._checkpoint_table())

    def _checkpoint_table(self) -> Table:
        table = Table([Column("checkpoint"), Column("MB", "number"), Column("note")])
        best = next((each.best_step for each in self.checkpoints if not each.fault), 0)
        for each in self.checkpoints:
            notes = []
            if each.is_emergency:
                notes.append("emergency")
            if each.step == best:
                notes.append("best")
            if each.fault:
                notes.append(f"damaged: {each.fault}")
            table.add([str(each.path), f"{each.nbytes / 1e6:,.1f}", ", ".join(notes)])
        return table


def read_info(folder: Path) -> RunInfo:
    """What a run folder holds; only files within limits are read, and no arrays.

    Raises:
        InputNotFoundError: there is no run.
        DataError: its record is damaged.
    """
    if is_exported(folder):
        evaluation = f"mlxlab evaluate {quoted(f'run={folder}')}"
        raise InputNotFoundError(
            f"{folder}: an exported model, expected a run folder; evaluate it with: {evaluation}"
        )
    record = collect_record(folder)
    frozen = sum(path.stat().st_size for path in (folder / BASE_FOLDER).glob("*.safetensors"))
    return RunInfo(RunView(record, folder), list_checkpoints(folder / FOLDER), frozen)
