"""The config of a resumed run: that of the checkpoint, changed by what was typed on the present command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mlxlab.config.check import check, check_stored_config
from mlxlab.config.hydra.overrides import cli_overrides, group_choices
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir
from mlxlab.config.resume_overrides import merge_for_resume, record_changes
from mlxlab.errors import CheckpointUnavailableError, ConfigError
from mlxlab.experiment.report import log_lines

if TYPE_CHECKING:
    from mlxlab.checkpoint.resume import ResumePolicy
    from mlxlab.checkpoint.store import Checkpoint
    from mlxlab.experiment.rank_zero import RankContext
    from mlxlab.tracking.tracker import Tracker
    from mlxlab.training.state import TrainState

Changes = dict[str, tuple[Any, Any]]  # key -> (old, new)


def resume_config(cfg: DictConfig, checkpoint: "Checkpoint | None") -> tuple[DictConfig, Changes]:
    """The config of the checkpoint with the overrides of the present command line, and the keys they change."""
    if checkpoint is None:
        return cfg, {}
    metadata = checkpoint.state["metadata"]
    choices = (metadata["choices"], group_choices())
    saved = check_stored_config(metadata["config"], str(checkpoint.path))
    merged, changes = merge_for_resume(saved, resolved(cfg), cli_overrides(), choices, conf_dir())
    resumed = OmegaConf.create(merged)
    check(resumed)
    return resumed, changes


def check_compatible(cfg: DictConfig, checkpoint: "Checkpoint | None", data: Any) -> "Checkpoint | None":
    """The checkpoint for the present data; raises NotAllowedError where data or tokenizer changed since the save."""
    if checkpoint is None:
        return None
    policy: ResumePolicy = instantiate(cfg.resume_policy)
    return policy.admit(checkpoint, data.fingerprint, data.tokenizer.fingerprint)


def check_fits(checkpoint: "Checkpoint | None", state: "TrainState") -> None:
    """Checks the arrays of a checkpoint against a new state; raises CorruptCheckpointError for the first misfit."""
    from mlxlab.checkpoint.arrays import check_arrays
    from mlxlab.training.checkpointer import saved_arrays

    if checkpoint is not None:
        weights, optimizer = saved_arrays(state)
        check_arrays(checkpoint.weights, weights, "model")
        check_arrays(checkpoint.optimizer, optimizer, "optimizer")


def refuse_checkpoint(
    checkpoint: "Checkpoint | None", changes: Changes, requested: DictConfig, reason: str, ranks: "RankContext"
) -> None:
    """Sets a checkpoint aside that does not fit its own config, where an older one may replace it.

    Raises:
        ConfigError: it does not fit because the optimizer was changed.
        CheckpointUnavailableError: it was requested by its name.
    """
    from mlxlab.checkpoint.store import CheckpointStore

    assert checkpoint is not None
    changed = [key for key in changes if key.startswith(("trainer.optimizer", "trainer.ema_decay"))]
    if changed:
        raise ConfigError(f"{', '.join(changed)}: the checkpoint has the state of another optimizer: {reason}")
    if requested.resume not in ("auto", "last"):
        raise CheckpointUnavailableError(f"{checkpoint.path}: {reason}")
    log_lines(f"skipped {checkpoint.path.name}: {reason}")
    if ranks.group.rank == 0:
        CheckpointStore(checkpoint.path.parent).reject(checkpoint.path)
    ranks.broadcast("")  # no rank looks for another one before this one is set aside


def log_config_changes(changes: Changes, checkpoint: "Checkpoint | None", run_dir: Path, tracker: "Tracker") -> None:
    """Records what a resume changes: in `resume_changes.json`, as tags, and on the terminal."""
    if checkpoint is None or not changes:
        return
    file, number = record_changes(run_dir, checkpoint.step, changes)
    lines = {key: f"{old} -> {new}" for key, (old, new) in changes.items()}
    log_lines(*(f"changed since the checkpoint: {key}: {line}" for key, line in lines.items()))
    tracker.set_tags({f"resume.{number}.{key}": line for key, line in lines.items()})
    tracker.log_artifact(file, "config")


def resolved(cfg: DictConfig) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    return config
