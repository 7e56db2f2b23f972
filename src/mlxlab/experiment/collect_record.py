"""Collects the record of a run from the files of its folder, which anyone may have written; writes its page.

A damaged file is named in the record, which lacks what the file holds.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

import yaml

from mlxlab.checkpoint.listing import CheckpointEntry, list_checkpoints, newest_state
from mlxlab.checkpoint.names import FOLDER, can_resume
from mlxlab.checkpoint.state import SavedState
from mlxlab.data.chat.chat_template import FILE as CHAT_TEMPLATE
from mlxlab.dotted_keys import value_at
from mlxlab.errors import InputNotFoundError, UserError
from mlxlab.experiment.facts.command_lines import model_changes
from mlxlab.experiment.facts.training_facts import finite, training_facts
from mlxlab.experiment.reproduction.compare import Comparison
from mlxlab.experiment.reproduction.run_lock import RunLock, read_lock
from mlxlab.files.untrusted import read_json, read_text, validate
from mlxlab.metric_names import VALID
from mlxlab.program import run_dir_override
from mlxlab.record import run_record as records
from mlxlab.record.attempts import read_now
from mlxlab.record.run_record import RunRecord
from mlxlab.wording import one_line

MAX_STATE_BYTES = 64 * 2**20
REPRODUCTION = "reproduction.json"
VERIFICATION = "verify.json"
_SHAPE = {  # Our keys and those of published models, by what they are called in a view.
    "layers": ("num_layers", "num_hidden_layers"),
    "width": ("hidden_size",),
    "heads": ("num_heads", "num_attention_heads"),
}
T = TypeVar("T")


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
    files = _RunFiles(folder)
    if not record.has_begun:
        record.command.first = recorded_overrides(folder)
    lock = files.read(lambda: read_lock(folder), None)
    record.code.is_locked = lock is not None
    if lock is not None:
        record.code.versions = lock["versions"]
        record.code.machine = lock["machine"]
    record.data.has_chat_template = (folder / "inference" / CHAT_TEMPLATE).is_file()
    record.data.vocabulary = files.vocabulary()
    is_known = record.training.final_state and record.model.shape
    checkpoints = files.checkpoints()
    state = None if is_known else newest_state(checkpoints, max_bytes=MAX_STATE_BYTES)
    if state is not None:
        record.model.shape = shape_of(state)
    if not record.training.final_state:
        record.training = last_training(record, state, lock)
    if not record.is_evaluated:
        record.evaluation = last_evaluation(record, state)
    record.can_resume = can_resume(folder)
    record.verifications = files.verifications()
    record.faults = files.faults


def write_run_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of the run in a folder, by default as its `report.html`; returns its path.

    Raises:
        InputNotFoundError, DataError: there is no run, or its record is damaged.
        WriteError: the page cannot be written.
    """
    from mlxlab.views.pages import REPORT, run_page, write_page
    from mlxlab.views.run_view import RunView

    folder = folder.absolute()
    view = RunView(collect_record(folder), folder)
    return write_page(out or folder / REPORT, run_page(view))


class _RunFiles:
    """The files of a run folder; `faults` are those that cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []

    def read(self, parse: Callable[[], T], default: T) -> T:
        """What `parse` returns; `default` without the file, and where it is damaged."""
        try:
            return parse()
        except InputNotFoundError:
            return default
        except UserError as error:
            self.faults.append(one_line(str(error).replace(f"{self.folder}/", ""), 300))
            return default

    def checkpoints(self) -> list[CheckpointEntry]:
        checkpoints = list_checkpoints(self.folder / FOLDER)
        self.faults += [
            f"{each.path.name}: {one_line(each.fault, 200)}" for each in checkpoints if each.fault
        ]
        return checkpoints

    def vocabulary(self) -> records.Vocabulary | None:
        path = self.folder / "inference" / "vocabulary.json"
        return self.read(lambda: read_json(path, records.Vocabulary), None)

    def verifications(self) -> list[records.Verification]:
        found = []
        verified = self.read(lambda: read_json(self.folder / VERIFICATION, VerifyResult), None)
        if verified is not None:
            step = max(verified["steps"], default=0)
            found.append(records.Verification("verify", step, verified["difference"]))
        repeated = self.read(lambda: read_json(self.folder / REPRODUCTION, Comparison), None)
        if repeated is not None:
            names = [each["what"] for each in repeated["differences"]] or ["unknown"]
            difference = ", ".join(names) if repeated["result"] == "diverged" else ""
            found.append(records.Verification("reproduce", repeated["last_step"], difference))
        return found


def recorded_overrides(folder: Path) -> list[str]:
    """What Hydra recorded of the command of a run that ended before training began."""
    overrides: list[str] = []
    with suppress(UserError, ValueError, yaml.YAMLError):
        text = read_text(folder / ".hydra" / "overrides.yaml")
        overrides = validate(yaml.safe_load(text), list[str])
    kept = [text for text in overrides if text != "resume=auto"]
    return [*kept, run_dir_override(folder)]


def shape_of(state: SavedState) -> dict[str, int]:
    """The sizes of the newest model: pretrained weights and growth have their own."""
    node = state["architecture"]
    inner = node.get("config")
    if isinstance(inner, dict):
        node = inner  # Architectures of mlx-lm keep their sizes there.
    sizes = {}
    for name, keys in _SHAPE.items():
        for key in keys:
            if isinstance(node.get(key), int):
                sizes[name] = node[key]
    return sizes


def last_training(
    record: RunRecord, state: SavedState | None, lock: RunLock | None
) -> records.Training:
    """What training came to, by the newest checkpoint, of a run that did not record its end."""
    changes = model_changes(record.command.continued)
    if state is not None:
        return training_facts(
            record.training, record.config, state["progress"], state["history"], changes
        )
    losses = lock["losses"] if lock else {}
    points = [(int(step), {"train/loss": loss}) for step, loss in losses.items()]
    curve = sorted(points, key=lambda point: point[0])
    return replace(record.training, curve=curve, events=changes)


def last_evaluation(record: RunRecord, state: SavedState | None) -> records.Evaluation:
    """The best evaluation during the run, of one that was not evaluated at its end."""
    best: Mapping[str, float | None] = record.training.final
    if state is not None:
        best = state["history"].best_metrics
    if not best:
        return records.Evaluation()
    data = record.data
    is_whole = not data.tokens and value_at(record.config, "trainer.eval_batches") is None
    rows = data.rows.get("validation", 0) if is_whole else 0
    values = {name: finite(value) for name, value in without_split(best).items()}
    return records.Evaluation(results=[records.SplitResult("valid", rows, values)])


def without_split(metrics: Mapping[str, float | None]) -> records.Metrics:
    return {name.removeprefix(VALID): value for name, value in metrics.items()}
