"""Collects the record of a run from the files of its folder, which anyone may have written; writes its page.

A damaged file is named in the record, which lacks what the file holds.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import yaml

from mlxlab.checkpoint.listing import list_checkpoints, newest_state
from mlxlab.checkpoint.names import FOLDER, ROUNDS, can_resume
from mlxlab.checkpoint.state import SavedState
from mlxlab.data.chat.chat_template import FILE as CHAT_TEMPLATE
from mlxlab.data.overlap import DROPPED, SAME_INPUT
from mlxlab.data.row_lengths import TOO_LONG
from mlxlab.dotted_keys import value_at
from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.experiment.facts.command_lines import command_lines, model_changes
from mlxlab.experiment.facts.training_limit import limit_of
from mlxlab.experiment.manifest import (
    Inputs,
    Manifest,
    effective_status,
    read_manifest,
    with_ended_attempts,
)
from mlxlab.experiment.past_run.stored_config import read_run_config
from mlxlab.experiment.reproduction.compare import Comparison
from mlxlab.experiment.reproduction.run_lock import read_lock
from mlxlab.files.untrusted import ShapeError, read_json, read_text, validate
from mlxlab.metric_names import VALID
from mlxlab.program import run_dir_override
from mlxlab.record import run_record as records
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import RunRecord
from mlxlab.wording import one_line

MAX_BYTES = 4 * 2**20
MAX_STATE_BYTES = 64 * 2**20
MAX_POINTS = 400  # A longer curve is thinned.
REPRODUCTION = "reproduction.json"
SAMPLES = "samples.json"
VERIFICATION = "verify.json"
_STATUSES: dict[str, records.Status] = {
    "RUNNING": "running",
    "DONE": "finished",
    "FAILED": "failed",
    "PREEMPTED": "interrupted",
    "DEAD": "killed",
}
_SHAPE = {  # Our keys and those of published models, by what they are called in a view.
    "layers": ("num_layers", "num_hidden_layers"),
    "width": ("hidden_size",),
    "heads": ("num_heads", "num_attention_heads"),
}
Rounds = list[dict[str, records.Metrics]]
T = TypeVar("T")


class VerifyResult(TypedDict):
    """`verify.json`: the steps of checkpoints that are bit for bit what training gives, and the first difference."""

    format: Literal[1]
    steps: list[int]
    difference: str


def collect_record(
    folder: Path, manifest: Manifest | None = None, evaluation: records.Evaluation | None = None
) -> RunRecord:
    """The record of the run in a folder.

    Args:
        manifest: that of a run that is about to end; None reads it.
        evaluation: what such a run has measured; None takes what the folder says.

    Raises:
        InputNotFoundError: there is no run.
        DataError: its manifest is damaged.
    """
    status = manifest["status"] if manifest else effective_status(folder)
    manifest = manifest or with_ended_attempts(read_manifest(folder), folder)
    files = _RunFiles(folder, manifest)
    record = RunRecord(
        id=manifest["id"],
        name=manifest["name"],
        status=_STATUSES[status],
        attempts=[_attempt(each) for each in manifest["attempts"]],
        seed=files.inputs.get("seed"),
        command=files.command(),
        code=files.code(),
        data=files.data(),
        model=files.model(),
        training=files.training(),
        config=files.config,
        parents=[records.Parent(each["kind"], each["of"]) for each in files.parents],
        can_resume=can_resume(folder),
        rounds=files.read(lambda: _read_rounds(folder), []),
        samples=files.read(
            lambda: read_json(folder / SAMPLES, list[records.Sample], max_bytes=MAX_BYTES), []
        ),
        verifications=files.verifications(),
    )
    earlier = files.read(lambda: read_run(folder), None)
    if earlier and earlier.id == record.id and _trained(earlier) == _trained(record):
        if earlier.status == "paused":
            record.status = "paused"
        if evaluation is None and earlier.is_evaluated:
            evaluation = earlier.evaluation
    record.is_evaluated = evaluation is not None
    record.evaluation = evaluation or files.last_evaluation(record.data)
    record.faults = files.faults
    return record


def write_run_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of the run in a folder, by default as its `report.html`; returns its path.

    Raises:
        InputNotFoundError, DataError: there is no run, or its manifest is damaged.
        WriteError: the page cannot be written.
    """
    from mlxlab.views.pages import REPORT, run_page, write_page
    from mlxlab.views.run_view import RunView

    folder = folder.absolute()
    view = RunView(collect_record(folder), folder)
    return write_page(out or folder / REPORT, run_page(view))


@dataclass
class _RunFiles:
    """What the files of a run folder hold."""

    folder: Path
    manifest: Manifest

    def __post_init__(self) -> None:
        self.faults: list[str] = []
        self.inputs: Inputs = self.manifest.get("inputs", {})
        self.facts = self.inputs.get("facts", {})
        self.choices = self.inputs.get("choices", {})
        self.parents = self.inputs.get("parents", [])
        self.outcome = self.manifest.get("outcome", {})
        self.lock = self.read(lambda: read_lock(self.folder), None)
        no_config: dict[str, Any] = {}
        config = self.lock["config"] if self.lock else None
        self.config = config or self.read(lambda: read_run_config(self.folder), no_config)
        checkpoints = list_checkpoints(self.folder / FOLDER)
        self.faults += [
            f"{each.path.name}: {one_line(each.fault, 200)}" for each in checkpoints if each.fault
        ]
        self.state: SavedState | None = newest_state(checkpoints, max_bytes=MAX_STATE_BYTES)

    def read(self, parse: Callable[[], T], default: T) -> T:
        """What `parse` returns; `default` without the file, and where it is damaged."""
        try:
            return parse()
        except InputNotFoundError:
            return default
        except UserError as error:
            self.faults.append(one_line(str(error).replace(f"{self.folder}/", ""), 300))
            return default

    def command(self) -> records.Command:
        first, later = command_lines(self.inputs, self.folder)
        if not self.inputs:
            first = self._recorded_overrides()
        return records.Command(
            first=first,
            overrides=self.inputs.get("overrides", []),
            choices=self.choices,
            continued=[records.Continuation(each.at, each.overrides) for each in later],
        )

    def _recorded_overrides(self) -> list[str]:
        """What Hydra recorded of the command of a run that ended before training began."""
        overrides: list[str] = []
        with suppress(UserError, ValueError, yaml.YAMLError):
            text = read_text(self.folder / ".hydra" / "overrides.yaml")
            overrides = validate(yaml.safe_load(text), list[str])
        kept = [text for text in overrides if text != "resume=auto"]
        return [*kept, run_dir_override(self.folder)]

    def code(self) -> records.Code:
        git = self.manifest.get("git", {})
        versions: Mapping[str, str] = self.inputs.get("versions", {})
        if self.lock is not None:
            versions = self.lock["versions"]
        return records.Code(
            commit=git.get("commit") or "",
            dirty={"true": True, "false": False}.get(git.get("dirty") or ""),
            versions={**versions},
            machine={**self.lock["machine"]} if self.lock else {},
            is_locked=self.lock is not None,
        )

    def data(self) -> records.Data:
        facts, inputs = self.facts, self.inputs
        text = facts.get("text", {})
        messages = inputs.get("messages", [])
        source = value_at(self.config, "data.source")
        return records.Data(
            name=self.choices.get("data", ""),
            task=facts.get("task", ""),  # type: ignore[arg-type]
            source=source if isinstance(source, str) else "",
            masked=facts.get("masked", False),
            label=facts.get("label", ""),
            positive_class=facts.get("positive_class", ""),
            columns=facts.get("columns", []),
            classes=facts.get("classes", []),
            num_classes=facts.get("num_classes", 0),
            rows=facts.get("examples") or {split: sizes[0] for split, sizes in text.items()},
            tokens={split: sizes[1] for split, sizes in text.items()},
            estimated=facts.get("estimated", []),
            loss_on=str(value_at(self.config, "data.loss_on") or ""),
            has_chat_template=(self.folder / "inference" / CHAT_TEMPLATE).is_file(),
            seq_len=inputs.get("row_limit", 0),
            measured_rows=inputs.get("rows", 0),
            truncated_rows=inputs.get("truncated_rows", 0),
            left_out_rows=inputs.get("left_out_rows", 0),
            overlaps=self._overlaps(messages),
            tokenizer=facts.get("tokenizer", ""),
            vocab_size=facts.get("vocab_size", 0),
            fingerprint=inputs.get("data", ""),
            tokenizer_fingerprint=inputs.get("tokenizer", ""),
            messages=messages,
        )

    def _overlaps(self, messages: list[str]) -> list[records.Overlap] | None:
        found = [
            records.Overlap(line, line.endswith(DROPPED)) for line in messages if SAME_INPUT in line
        ]
        target = str(value_at(self.config, "data._target_"))
        if not found and not target.startswith("mlxlab.data.labelled."):
            return None
        return found

    def model(self) -> records.Model:
        """Of pretrained weights and after growth, the shape is that of the newest checkpoint."""
        overrides = self.inputs.get("overrides", [])
        has_size = any(text.startswith("model/size=") for text in overrides)
        adapter = self.choices.get("model/adapter", "none")
        parameters = self.facts.get("parameters", 0)
        return records.Model(
            name=self.choices.get("model", ""),
            size=self.choices.get("model/size", "") if has_size else "",
            adapter="" if adapter == "none" else adapter,
            parameters=int(self.outcome.get("parameters") or parameters),
            trainable=self.facts.get("trainable_parameters", parameters),
            shape=self._shape(),
        )

    def _shape(self) -> dict[str, int]:
        node = self.state["architecture"] if self.state else {}
        inner = node.get("config")
        if isinstance(inner, dict):
            node = inner  # Architectures of mlx-lm keep their sizes there.
        sizes = {}
        for name, keys in _SHAPE.items():
            for key in keys:
                if isinstance(node.get(key), int):
                    sizes[name] = node[key]
        return sizes

    def training(self) -> records.Training:
        outcome = self.outcome
        rate = value_at(self.config, "trainer.learning_rate")
        training = records.Training(
            objective=outcome.get("objective") or str(self.config.get("objective", "valid/loss")),
            steps=outcome.get("steps", 0),
            best_step=outcome.get("best_step", 0),
            tokens=outcome.get("tokens", 0),
            batches_per_epoch=self.facts.get("batches_per_epoch", 0),
            limit=limit_of(self.config, outcome.get("steps")),
            learning_rate=float(rate) if isinstance(rate, int | float) else 0.0,
            seconds=outcome.get("wall_seconds", 0.0),
            final_state=outcome.get("final_state", ""),
        )
        changes = [(step, f"by a resume: {text}") for step, text in model_changes(self.inputs)]
        if self.state is None:
            losses = self.lock["losses"] if self.lock else {}
            points = [(int(step), {"train/loss": loss}) for step, loss in losses.items()]
            training.curve = sorted(points, key=lambda point: point[0])
            training.events = changes
            return training

        progress, history = self.state["progress"], self.state["history"]
        training.steps = progress.step
        training.tokens = progress.tokens
        training.is_resized = bool(progress.batch_sizes)
        training.nonfinite_steps = progress.nonfinite_steps
        training.rollbacks = progress.rollbacks
        training.best_step = history.best_step
        training.evaluations = [(step, _finite(value)) for step, value in history.evaluations]
        training.curve = _thinned(history.curve)
        training.events = sorted([*changes, *history.events], key=lambda event: event[0])
        return training

    def last_evaluation(self, data: records.Data) -> records.Evaluation:
        """The best evaluation during the run, of one that was not evaluated at its end."""
        best: Mapping[str, float | None] = self.outcome.get("final", {})
        if self.state is not None:
            best = self.state["history"].best_metrics
        if not best:
            return records.Evaluation()
        is_whole = not data.tokens and value_at(self.config, "trainer.eval_batches") is None
        rows = data.rows.get("validation", 0) if is_whole else 0
        values = {name: _finite(value) for name, value in without_split(best).items()}
        return records.Evaluation(results=[records.SplitResult("valid", rows, values)])

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


def _trained(record: RunRecord) -> int:
    """The number of attempts that took a step."""
    return sum(each.trained for each in record.attempts)


def without_split(metrics: Mapping[str, float | None]) -> records.Metrics:
    return {name.removeprefix(VALID): value for name, value in metrics.items()}


def _attempt(attempt: Mapping[str, Any]) -> records.Attempt:
    """The attempt, without the warning on long rows: `Data` has their number."""
    return records.Attempt(
        host=attempt["host"],
        start=attempt["start"],
        status=_STATUSES[attempt["status"]],
        trained=attempt.get("trained", True),
        end=attempt.get("end"),
        error=attempt.get("error", ""),
        warnings=[line for line in attempt.get("warnings", []) if TOO_LONG not in line],
    )


def _thinned(curve: list[tuple[int, dict[str, float]]]) -> list[tuple[int, records.Metrics]]:
    """Evaluations, and evenly spaced points among the others."""
    stride = max(1, len(curve) // MAX_POINTS)
    points = []
    for index, (step, metrics) in enumerate(curve):
        is_evaluation = any(name.startswith("valid/") for name in metrics)
        if is_evaluation or index % stride == 0:
            points.append((step, {name: _finite(value) for name, value in metrics.items()}))
    return points


def _finite(value: float | None) -> float | None:
    if value is None or not isfinite(value):
        return None
    return value


def _read_rounds(folder: Path) -> Rounds:
    fields = read_json(folder / ROUNDS, dict[str, object])
    try:
        results: Rounds = validate(fields.get("done", []), Rounds)
        return results
    except ShapeError as error:
        raise DataError(f"{folder / ROUNDS}: done{error}") from None
