"""Reads what a run folder holds for its report, within limits. Damaged files are named, and the report lacks them."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mlxlab.checkpoint.listing import CheckpointEntry, list_checkpoints, newest_state
from mlxlab.checkpoint.names import FOLDER, ROUNDS
from mlxlab.checkpoint.state import SavedState
from mlxlab.config.issues import one_line
from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.experiment.facts.attempts import Attempt, deciding_attempt
from mlxlab.experiment.facts.command_lines import model_changes
from mlxlab.experiment.facts.run_facts import RunFacts
from mlxlab.experiment.manifest import (
    Manifest,
    effective_status,
    read_manifest,
    with_ended_attempts,
)
from mlxlab.experiment.past_run.stored_config import read_run_config
from mlxlab.experiment.reproduction.compare import Comparison
from mlxlab.experiment.reproduction.run_lock import RunLock, read_lock
from mlxlab.experiment.run_metrics import FILE as METRICS
from mlxlab.experiment.run_metrics import RunMetrics
from mlxlab.experiment.run_report.result_files import (
    SAMPLES,
    VERIFICATION,
    TextSample,
    Verification,
)
from mlxlab.files.untrusted import ShapeError, read_bytes, read_json, read_text, validate
from mlxlab.html.blocks import png_width

MAX_BYTES = 4 * 2**20  # of a table or an image
MAX_STATE_BYTES = 64 * 2**20  # of `state.json` of a checkpoint
MAX_ROWS, MAX_PLOTS = 200, 12
RoundResults = list[dict[str, dict[str, float | None]]]  # metrics by model of each round
T = TypeVar("T")


@dataclass
class RunFiles:
    """The contents of a run folder; None or empty where there is none. `faults` are files that cannot be used."""

    folder: Path
    manifest: Manifest
    status: str
    metrics: RunMetrics | None = None
    lock: RunLock | None = None
    config: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[CheckpointEntry] = field(default_factory=list)
    state: SavedState | None = None  # of the newest checkpoint
    per_class: list[list[str]] = field(default_factory=list)
    mistakes: list[list[str]] = field(default_factory=list)
    samples: list[TextSample] = field(default_factory=list)
    rounds: RoundResults = field(default_factory=list)
    verification: Verification | None = None
    reproduction: Comparison | None = None
    plots: dict[str, bytes] = field(default_factory=dict)  # PNG files by name
    faults: list[str] = field(default_factory=list)

    @property
    def facts(self) -> RunFacts:
        return self.manifest.get("inputs", {}).get("facts", {})

    @property
    def is_labelled(self) -> bool:
        """Whether the model predicts labels, also of a run without a final evaluation."""
        if "task" in self.facts:
            return self.facts["task"] != "language_modelling"
        return bool(self.metrics and self.metrics["main_metric"])

    @property
    def is_evaluated(self) -> bool:
        """Whether the run has reached its final evaluation."""
        return self.metrics is not None and self.metrics.get("state", "finished") == "finished"

    @property
    def attempt(self) -> Attempt:
        """The one that decided the status."""
        return deciding_attempt(self.manifest["attempts"], self.status)

    @property
    def model_changes(self) -> list[tuple[int, str]]:
        return model_changes(self.manifest.get("inputs", {}))


def read_run_files(folder: Path, manifest: Manifest | None = None) -> RunFiles:
    """The files of a run folder.

    Args:
        manifest: that of a run that is about to end; None reads it.

    Raises:
        InputNotFoundError: there is no run.
        DataError: its manifest is damaged.
    """
    status = manifest["status"] if manifest else effective_status(folder)
    files = RunFiles(folder, manifest or with_ended_attempts(read_manifest(folder), folder), status)

    def read(parse: Callable[[], T], default: T) -> T:
        try:
            return parse()
        except InputNotFoundError:
            return default
        except UserError as error:
            files.faults.append(one_line(str(error).replace(f"{folder}/", ""), 300))
            return default

    files.metrics = read(lambda: read_json(folder / METRICS, RunMetrics), None)
    files.lock = read(lambda: read_lock(folder), None)
    no_config: dict[str, Any] = {}
    config = files.lock["config"] if files.lock else None
    files.config = config or read(lambda: read_run_config(folder), no_config)
    files.checkpoints = list_checkpoints(folder / FOLDER)
    files.faults += [
        f"{each.path.name}: {one_line(each.fault, 200)}" for each in files.checkpoints if each.fault
    ]
    files.state = newest_state(files.checkpoints, max_bytes=MAX_STATE_BYTES)
    files.per_class = read(lambda: _read_table(folder / "per_class.csv", 6), [])
    files.mistakes = read(lambda: _read_table(folder / "mistakes.csv", 5), [])
    files.samples = read(
        lambda: read_json(folder / SAMPLES, list[TextSample], max_bytes=MAX_BYTES), []
    )
    files.rounds = read(lambda: _read_rounds(folder), [])
    files.verification = read(lambda: read_json(folder / VERIFICATION, Verification), None)
    files.reproduction = read(lambda: read_json(folder / "reproduction.json", Comparison), None)
    for path in sorted((folder / "plots").glob("*.png"))[:MAX_PLOTS]:
        if png := read(lambda path=path: _read_png(path), b""):  # type: ignore[misc]
            files.plots[path.stem] = png
    return files


def _read_table(path: Path, width: int) -> list[list[str]]:
    """The head and the first rows of a CSV file of so many columns."""
    reader = csv.reader(io.StringIO(read_text(path, max_bytes=MAX_BYTES)))
    rows = []
    try:
        for row, _ in zip(reader, range(MAX_ROWS + 1), strict=False):
            if len(row) != width:
                raise DataError(
                    f"{path}:{reader.line_num}: expected {width} columns, got {len(row)}"
                )
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None
    return rows


def _read_rounds(folder: Path) -> RoundResults:
    fields = read_json(folder / ROUNDS, dict[str, object])
    try:
        results: RoundResults = validate(fields.get("done", []), RoundResults)
        return results
    except ShapeError as error:
        raise DataError(f"{folder / ROUNDS}: done{error}") from None


def _read_png(path: Path) -> bytes:
    data = read_bytes(path, max_bytes=MAX_BYTES)
    try:
        png_width(data)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return data
