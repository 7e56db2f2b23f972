"""What a run folder says about its run. Only files within limits are read, and no arrays; nothing is changed."""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import yaml

from mlxlab.checkpoint.exported import is_exported
from mlxlab.checkpoint.frozen_weights import FOLDER as BASE_FOLDER
from mlxlab.checkpoint.listing import list_checkpoints, newest_state
from mlxlab.checkpoint.names import FOLDER, can_resume, whole_run
from mlxlab.checkpoint.state import SavedState
from mlxlab.config.issues import value_at
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.description.settings import ChangedSettings, changed_settings
from mlxlab.experiment.facts.attempts import Attempt
from mlxlab.experiment.facts.command_lines import command_lines, model_changes
from mlxlab.experiment.manifest import (
    Inputs,
    Manifest,
    effective_status,
    read_manifest,
    with_ended_attempts,
)
from mlxlab.experiment.past_run.stored_config import read_run_config
from mlxlab.experiment.run_metrics import FILE as METRICS_FILE
from mlxlab.experiment.run_metrics import Metrics, RunMetrics
from mlxlab.files.untrusted import read_json, read_text, validate
from mlxlab.program import join, quoted, resume_command, run_dir_override

Tree = dict[str, object]


class Position(TypedDict):
    """How far a run has come, by its newest checkpoint or its manifest. `limits` are those of the trainer."""

    step: int
    samples: int | None
    tokens: int
    limits: dict[str, object]


class ContinuationCommand(TypedDict):
    """A command that continued a run; `at` says where: `at step 50`, "" if that was not recorded."""

    at: str
    command: str


class RunDescription(TypedDict):
    """A run. Bytes are those of files; times are seconds since 1970.

    Attributes:
        status: that of the manifest, or DEAD for a run without its process.
        command: that began the run.
        continued: the commands that continued it, in order.
        model_changes: what those commands changed in the model, and at which step.
        is_in_mlflow: whether it is tracked there.
        adapter: kind, rank and alpha; "" for none.
        data: the config node of the data set, as far as it says which data.
        changed: settings and options that differ from the defaults.
        metrics: of the best evaluation.
        test: of the best weights on the test rows.
        next: the command that continues the run, where it is not done.
    """

    folder: str
    id: str
    name: str
    status: str
    attempts: list[Attempt]
    command: str
    continued: list[ContinuationCommand]
    model_changes: list[str]
    commit: str | None
    uncommitted_changes: str | None
    kernels: str | None
    is_in_mlflow: bool
    data: Tree
    parameters: float | None
    trained_parameters: int | None
    adapter: str
    position: Position | None
    changed: ChangedSettings
    objective: str | None
    best_step: int | None
    metrics: Metrics
    test: Metrics
    checkpoints: list[Tree]
    frozen_weights: int
    next: list[str]


def describe_run(folder: Path) -> RunDescription:
    """The description of the run in a folder.

    Raises:
        InputNotFoundError: there is no run.
        DataError, NotAllowedError: a file is damaged, or its config names a class that may not be built.
    """
    if is_exported(folder):
        evaluation = f"mlxlab evaluate {quoted(f'run={folder}')}"
        raise InputNotFoundError(
            f"{folder}: an exported model, expected a run folder; evaluate it with: {evaluation}"
        )
    manifest = read_manifest(folder)
    config, metrics = _config(folder), _metrics(folder)
    checkpoints = list_checkpoints(folder / FOLDER)
    state, outcome = newest_state(checkpoints), manifest.get("outcome", {})
    inputs, git = manifest.get("inputs", {}), manifest.get("git", {})
    status = effective_status(folder)
    first, later = command_lines(inputs, folder) if "first" in inputs else (_typed(inputs), [])
    began_by = _train_command(first if inputs else _recorded(folder))
    began = status == "RUNNING" or (bool(inputs) and (status == "DONE" or can_resume(folder)))
    best_step, best = _best(metrics, state)
    return {
        "folder": str(folder),
        "id": manifest["id"],
        "name": manifest["name"],
        "status": status,
        "attempts": with_ended_attempts(manifest, folder)["attempts"],
        "command": began_by,
        "continued": [
            ContinuationCommand(at=at, command=_train_command(typed)) for at, typed in later
        ],
        "model_changes": [f"at step {step:,}: {text}" for step, text in model_changes(inputs)],
        "commit": git.get("commit"),
        "uncommitted_changes": git.get("dirty"),
        "kernels": inputs.get("kernels"),
        "is_in_mlflow": value_at(config, "tracking.experiment") is not None,
        "data": _data(config, inputs.get("data")),
        "parameters": outcome.get("parameters"),
        "trained_parameters": inputs.get("facts", {}).get("trainable_parameters"),
        "adapter": _adapter(config, inputs.get("choices", {}).get("model/adapter", "none")),
        "position": _position(manifest, state, config),
        "changed": changed_settings(config, inputs.get("choices", {})),
        "objective": outcome.get("objective") or (str(config["objective"]) if config else None),
        "best_step": best_step,
        "metrics": best,
        "test": metrics["test"] if metrics else {},
        "checkpoints": [asdict(each) | {"path": str(each.path)} for each in checkpoints],
        "frozen_weights": sum(
            path.stat().st_size for path in (folder / BASE_FOLDER).glob("*.safetensors")
        ),
        "next": _next(folder, status) if began else [began_by],
    }


def _train_command(overrides: list[str]) -> str:
    return f"mlxlab train {join(overrides)}".rstrip()


def _typed(inputs: Inputs) -> list[str]:
    folder = inputs.get("run_dir")
    return [*inputs.get("overrides", []), *([f"hydra.run.dir={folder}"] if folder else [])]


def _recorded(folder: Path) -> list[str]:
    """What Hydra recorded of the command of a run that ended before training began."""
    overrides: list[str] = []
    with suppress(InputNotFoundError, DataError, ValueError, yaml.YAMLError):
        overrides = validate(
            yaml.safe_load(read_text(folder / ".hydra" / "overrides.yaml")), list[str]
        )
    return [*(text for text in overrides if text != "resume=auto"), run_dir_override(folder)]


def _config(folder: Path) -> Tree:
    """The stored config; empty if the run ended before it was written."""
    try:
        return read_run_config(folder)
    except InputNotFoundError:
        return {}


def _metrics(folder: Path) -> RunMetrics | None:
    try:
        return read_json(folder / METRICS_FILE, RunMetrics)
    except InputNotFoundError:
        return None


def _data(config: Tree, fingerprint: str | None) -> Tree:
    node = config.get("data")
    keys = ("_target_", "source", "mixture", "seq_len", "batch_size")
    data = (
        {key: node[key] for key in keys if node.get(key) is not None}
        if isinstance(node, dict)
        else {}
    )
    return data | ({"fingerprint": fingerprint} if fingerprint else {})


def _adapter(config: Tree, kind: str) -> str:
    keys = {key: value_at(config, f"model.adapter.{key}") for key in ("rank", "alpha")}
    sizes = [f"{key} {value:g}" for key, value in keys.items() if isinstance(value, int | float)]
    return ", ".join([f"adapter {kind}", *sizes]) if kind != "none" else ""


def _position(manifest: Manifest, state: SavedState | None, config: Tree) -> Position | None:
    outcome, trainer = manifest.get("outcome", {}), config.get("trainer")
    plan = trainer if isinstance(trainer, dict) else {}
    limits = {
        key: plan[key] for key in ("max_steps", "epochs", "max_tokens") if plan.get(key) is not None
    }
    if limits.get("epochs") == "auto":
        limits["epochs"] = manifest.get("inputs", {}).get("facts", {}).get("epochs", "auto")
    if state is not None:
        progress = state["progress"]
        return Position(
            step=progress.step, samples=progress.samples, tokens=progress.tokens, limits=limits
        )
    if "steps" in outcome:
        return Position(
            step=outcome["steps"], samples=None, tokens=outcome.get("tokens", 0), limits=limits
        )
    return None


def _best(metrics: RunMetrics | None, state: SavedState | None) -> tuple[int | None, Metrics]:
    """Step and metrics of the best evaluation, so far if the run has not ended."""
    if metrics is not None:
        return metrics["best_step"] or None, metrics["metrics"]
    if state is None:
        return None, {}
    return state["history"].best_step or None, {**state["history"].best_metrics}


def _next(folder: Path, status: str) -> list[str]:
    return [] if status in ("RUNNING", "DONE") else [resume_command(whole_run(folder))]
