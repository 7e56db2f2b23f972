"""Collects the record of a run from the files of its folder, which anyone may have written; writes its page and `info run=`.

A damaged file is named in the record, which lacks what the file holds.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from mlxlab.checkpoint.listing import CheckpointEntry, is_exported, list_checkpoints, newest_state
from mlxlab.checkpoint.names import FOLDER, can_resume
from mlxlab.checkpoint.state import History, Progress, SavedState
from mlxlab.data.chat.chat_template import FILE as CHAT_TEMPLATE
from mlxlab.errors import InputNotFoundError, UserError
from mlxlab.files.atomic import without_nonfinite
from mlxlab.files.untrusted import read_json
from mlxlab.past_runs.changes import model_changes
from mlxlab.past_runs.run_lock import Comparison, read_lock
from mlxlab.record.attempts import read_now
from mlxlab.record.run_record import (
    Evaluation,
    Metrics,
    RunRecord,
    SplitResult,
    Training,
    Verification,
)
from mlxlab.schema.dotted_keys import value_at
from mlxlab.schema.metric_names import TOKENS_PER_SEC, VALID
from mlxlab.terminal.program import quoted
from mlxlab.terminal.redact import redact
from mlxlab.terminal.wording import one_line
from mlxlab.views.commands import next_commands, typed_commands
from mlxlab.views.run_view import RunView
from mlxlab.views.tables import Column, Table

MAX_STATE_BYTES = 64 * 2**20
REPRODUCTION = "reproduction.json"
VERIFICATION = "verify.json"
T = TypeVar("T")
LIMITS = ("max_steps", "epochs", "max_tokens")
# A finished run is evaluated again if another key was changed.
LIMIT_KEYS = {f"trainer.{key}" for key in LIMITS}
_SHAPE = {  # Our keys and those of published models, by what they are called in a view.
    "layers": ("num_layers", "num_hidden_layers"),
    "width": ("hidden_size",),
    "heads": ("num_heads", "num_attention_heads"),
}


class VerifyResult(TypedDict):
    """`verify.json`: the steps of checkpoints that are bit for bit what training gives, and the first difference."""

    format: Literal[1]
    steps: list[int]
    difference: str


def collect_record(folder: Path) -> RunRecord:
    """The record of the run in a folder, as it stands now.

    Raises:
        InputNotFoundError: there is no run.
        DataError: its record is damaged.
    """
    record = read_now(folder)
    complete(record, folder)
    return record


def complete(record: RunRecord, folder: Path) -> None:
    """Adds to a record what other files of its folder hold."""
    faults = []

    def read(parse: Callable[[], T]) -> T | None:
        """What `parse` returns; None without the file, and where it is damaged."""
        try:
            return parse()
        except InputNotFoundError:
            return None
        except UserError as error:
            faults.append(one_line(str(error).replace(f"{folder}/", ""), 300))
            return None

    lock = read(lambda: read_lock(folder))
    record.code.is_locked = lock is not None
    if lock is not None:
        record.code.versions = lock["versions"]
        record.code.machine = lock["machine"]
    record.data.has_chat_template = (folder / "inference" / CHAT_TEMPLATE).is_file()
    checkpoints = list_checkpoints(folder / FOLDER)
    faults += [
        f"{each.path.name}: {one_line(each.fault, 200)}" for each in checkpoints if each.fault
    ]
    if not (record.training.final_state and record.is_evaluated):
        add_progress(record, newest_state(checkpoints, max_bytes=MAX_STATE_BYTES))
    record.can_resume = can_resume(folder)

    record.verifications = []
    verified = read(lambda: read_json(folder / VERIFICATION, VerifyResult))
    if verified is not None:
        step = max(verified["steps"], default=0)
        record.verifications.append(Verification("verify", step, verified["difference"]))
    repeated = read(lambda: read_json(folder / REPRODUCTION, Comparison))
    if repeated is not None:
        difference = ""
        if repeated["result"] == "diverged":
            names = [each["what"] for each in repeated["differences"]]
            difference = ", ".join(names or ["unknown"])
        verification = Verification("reproduce", repeated["last_step"], difference)
        record.verifications.append(verification)
    record.faults = faults


def add_progress(record: RunRecord, state: SavedState | None) -> None:
    """Adds what training came to, by the newest checkpoint, to the record of a run that did not record its end."""
    best: Mapping[str, float | None] = record.training.final
    if state is not None:
        best = state["history"].best_metrics
    if best and not record.is_evaluated:
        record.evaluation = Evaluation(results=[SplitResult("valid", 0, without_split(best))])
    if record.training.final_state:
        return
    if state is None:
        record.training.events = model_changes(record.command.continued)
    else:
        record.model.shape = shape_of(state["architecture"])
        record.training = training_facts(record, state["progress"], state["history"])


def write_run_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of the run in a folder, by default as its `report.html`; returns its path.

    Raises:
        InputNotFoundError, DataError: there is no run, or its record is damaged.
        WriteError: the page cannot be written.
    """
    from mlxlab.views.pages import REPORT, run_page, write_page

    folder = folder.absolute()
    page = run_page(RunView(collect_record(folder), folder))
    return write_page(out or folder / REPORT, page)


def without_split(metrics: Mapping[str, float | None]) -> Metrics:
    """The finite ones of these metrics of validation rows."""
    return {name.removeprefix(VALID): without_nonfinite(value) for name, value in metrics.items()}


def limit_of(config: dict[str, Any], steps: int | None = None) -> str:
    """The key of the trainer by which a run with this config ends, or has ended after a number of steps."""
    keys = [key for key in LIMITS if value_at(config, f"trainer.{key}") is not None]
    max_steps = value_at(config, "trainer.max_steps")
    if steps is not None and isinstance(max_steps, int) and steps < max_steps and keys[1:]:
        return keys[1]
    return next(iter(keys), "epochs")


def training_facts(
    record: RunRecord, progress: Progress, history: History, final_state: str = ""
) -> Training:
    """What is known after some steps; `final_state` is a digest of the state of a run that ended, or was stopped."""
    changes = model_changes(record.command.continued)
    return replace(
        record.training,
        limit=limit_of(record.config, progress.step),
        steps=progress.step,
        tokens=progress.tokens,
        is_resized=bool(progress.batch_sizes),
        nonfinite_steps=progress.nonfinite_steps,
        rollbacks=progress.rollbacks,
        best_step=history.best_step,
        best=without_nonfinite(history.best),
        final=final_metrics(history),
        speed=without_nonfinite(history.latest(TOKENS_PER_SEC)),
        evaluations=[(step, without_nonfinite(value)) for step, value in history.evaluations],
        curve=[(step, without_nonfinite(metrics)) for step, metrics in history.curve],
        events=sorted([*changes, *history.events], key=lambda event: event[0]),
        final_state=final_state,
    )


def final_metrics(history: History) -> Metrics:
    """Metrics of the last evaluation, also if it was made before a resume."""
    for _, metrics in reversed(history.curve):
        last = {name: value for name, value in metrics.items() if name.startswith(VALID)}
        if last:
            return without_nonfinite(last)
    return {}


def shape_of(node: Mapping[str, Any]) -> dict[str, int]:
    """The sizes in the node of an architecture: pretrained weights and growth have their own."""
    inner = node.get("config")
    if isinstance(inner, dict):
        node = inner  # Architectures of mlx-lm keep their sizes there.
    sizes = {}
    for name, keys in _SHAPE.items():
        for key in keys:
            if isinstance(node.get(key), int):
                sizes[name] = node[key]
    return sizes


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
        return info_lines(self.view, self.frozen_bytes, table)


def read_info(folder: Path) -> RunInfo:
    """What a run folder holds; only files within limits are read, and no arrays.

    Raises:
        InputNotFoundError: there is no run.
        DataError: its record is damaged.
    """
    from mlxlab.checkpoint.frozen_weights import FOLDER as BASE_FOLDER  # It imports MLX.

    if is_exported(folder):
        evaluation = f"mlxlab evaluate {quoted(f'run={folder}')}"
        raise InputNotFoundError(
            f"{folder}: an exported model, expected a run folder; evaluate it with: {evaluation}"
        )
    record = collect_record(folder)
    frozen = sum(path.stat().st_size for path in (folder / BASE_FOLDER).glob("*.safetensors"))
    return RunInfo(RunView(record, folder), list_checkpoints(folder / FOLDER), frozen)
