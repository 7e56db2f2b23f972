"""Metadata that a run records in its checkpoints, its manifest and the tracker."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab import backend
from mlxlab.config.hydra.overrides import cli_overrides, group_choices
from mlxlab.experiment.build import Config, Session, package_versions
from mlxlab.experiment.manifest import lineage, pairing_key
from mlxlab.tracking import provenance
from mlxlab.tracking.journal import PARENT

if TYPE_CHECKING:
    from mlxlab.checkpoint.state import RunMetadata
    from mlxlab.checkpoint.store import Checkpoint
    from mlxlab.tracking.tracker import Tracker


def run_choices(checkpoint: "Checkpoint | None") -> dict[str, str]:
    """Group -> option: those of the command line; of a resumed run those it started with, unless typed again."""
    choices = group_choices()
    if checkpoint is None:
        return choices
    typed = {override.lstrip("+~").split("=", 1)[0].split("@")[0] for override in cli_overrides()}
    return checkpoint.state["metadata"]["choices"] | {key: choices[key] for key in typed & choices.keys()}


def run_metadata(session: Session, tracker: "Tracker", choices: dict[str, str]) -> "RunMetadata":
    """Metadata that a checkpoint needs to be resumed, verified and compared later."""
    return {
        "config": session.cfg,
        "config_hash": hashlib.sha256(json.dumps(session.cfg, sort_keys=True).encode()).hexdigest(),
        "choices": choices,
        "versions": package_versions(),
        "data": session.data.fingerprint,
        "held_out": session.data.held_out,
        "tokenizer": session.data.tokenizer.fingerprint,
        "teachers": session.teachers.digests,
        "uid": tracker.uid,
    }


def run_tags(session: Session) -> dict[str, str]:
    from mlxlab.models.model import count_parameters

    cfg, parameters = session.cfg, str(count_parameters(session.model))
    tags = {"overrides": " ".join(cli_overrides()), "parameters": parameters, "objective": cfg["objective"]}
    return tags | {str(key): str(value) for key, value in cfg["tags"].items()} | backend.describe()


def run_name(cfg: Config, run_dir: Path) -> str:
    choices = group_choices()
    options = [choices[group] for group in ("model", "model/size", "data", "trainer") if group in choices]
    return cfg["name"] or "-".join(options) or run_dir.name


def log_inputs(session: Session, tracker: "Tracker", inference_dir: Path) -> None:
    """Records the data set and the inference config with the tracker."""
    data = session.data
    tracker.log_dataset(session.cfg["data"]["_target_"].rsplit(".", 1)[-1], data.fingerprint, data.sources[-1])
    tracker.log_artifact(inference_dir, "config")


def manifest_fields(session: Session, checkpoint: "Checkpoint | None", run_dir: Path) -> dict[str, Any]:
    """Fields that the manifest records before training."""
    metadata = session.context.metadata
    is_own = checkpoint is None or checkpoint.path.absolute().is_relative_to(run_dir.absolute())
    source = None if checkpoint is None or is_own else checkpoint.path
    return {
        "id": metadata["uid"] or None,
        "name": run_name(session.cfg, run_dir),
        "parents": lineage(session.cfg, source, os.environ.get(PARENT, "")),
        "overrides": cli_overrides(),
        **pairing_key(session.cfg),
        "config_hash": metadata["config_hash"],
        "versions": metadata["versions"],
        "data": metadata["data"],
        "tokenizer": metadata["tokenizer"],
        "teachers": metadata["teachers"],
    }


def git_commit() -> dict[str, Any]:
    tags = provenance.git()
    return {"git": {"commit": tags.get("mlflow.source.git.commit"), "dirty": tags["git.dirty"]}}
