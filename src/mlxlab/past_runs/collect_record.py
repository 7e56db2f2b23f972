"""Collects the record of a run from the files of its folder, which anyone may have written; writes its page.

A damaged file is named in the record, which lacks what the file holds.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

from mlxlab.checkpoint.listing import list_checkpoints, newest_state
from mlxlab.checkpoint.names import FOLDER, can_resume
from mlxlab.checkpoint.state import SavedState
from mlxlab.data.chat.chat_template import FILE as CHAT_TEMPLATE
from mlxlab.errors import InputNotFoundError, UserError
from mlxlab.files.untrusted import read_json
from mlxlab.past_runs.command_lines import model_changes
from mlxlab.past_runs.reproduction import Comparison
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.past_runs.training_facts import finite, shape_of, training_facts
from mlxlab.record import run_record as records
from mlxlab.record.attempts import read_now
from mlxlab.record.run_record import Evaluation, RunRecord, SplitResult, Verification
from mlxlab.schema.metric_names import VALID
from mlxlab.terminal.wording import one_line

MAX_STATE_BYTES = 64 * 2**20
REPRODUCTION = "reproduction.json"
VERIFICATION = "verify.json"
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
    faults: list[str] = []

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
        record.verifications.append(_verification(repeated))
    record.faults = faults


def _verification(repeated: Comparison) -> Verification:
    """The result of `mlxlab reproduce` as the record has it."""
    difference = ""
    if repeated["result"] == "diverged":
        names = [each["what"] for each in repeated["differences"]]
        difference = ", ".join(names or ["unknown"])
    return Verification("reproduce", repeated["last_step"], difference)


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
    from mlxlab.views.run_view import RunView

    folder = folder.absolute()
    view = RunView(collect_record(folder), folder)
    return write_page(out or folder / REPORT, run_page(view))


def without_split(metrics: Mapping[str, float | None]) -> records.Metrics:
    """The finite ones of these metrics of validation rows."""
    return {name.removeprefix(VALID): finite(value) for name, value in metrics.items()}
