"""Decides what a run starts from: initial weights, its own checkpoint, or that of another run (a fork).

A resumed run takes the config of its checkpoint, changed by what was typed on the current command line.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlxlab.checkpoint.arrays import AVERAGE, TRAINED, Arrays, digest, swap_weights
from mlxlab.checkpoint.exported import refuse_exported
from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.names import committed_paths, step_of
from mlxlab.checkpoint.parameter_names import normalized_names
from mlxlab.checkpoint.resume import ResumePolicy, check_arrays, load_named, resolve_resume
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.instantiate import instantiate
from mlxlab.data.dataset import DataModule
from mlxlab.data.tokenizers.tokenizer import load_tokenizer
from mlxlab.distributed.process_group import ProcessGroup
from mlxlab.dotted_keys import split_key
from mlxlab.errors import CheckpointUnavailableError, ConfigError, InputNotFoundError
from mlxlab.experiment.build import (
    Config,
    model_seed,
    saved_architecture,
    without_overridden_settings,
)
from mlxlab.experiment.facts.training_facts import LIMIT_KEYS
from mlxlab.experiment.resume.changes import Changes
from mlxlab.experiment.resume.requests import requests_against_growth, resume_config
from mlxlab.experiment.resume.vocabulary import (
    admit_larger_tokenizer,
    larger_tokenizer,
    saved_tokenizer_dir,
)
from mlxlab.models.build import Architecture, train_new_weights
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model
from mlxlab.program import path_override, quoted
from mlxlab.terminal.messages import log_lines
from mlxlab.tracking.journal import FILE as JOURNAL
from mlxlab.training.checkpointer import saved_arrays
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.state import TrainState

if TYPE_CHECKING:
    from mlxlab.extensions.growth.resume.carry_over import CarriedOver


class Start(NamedTuple):
    """The config of a run, and what it starts from.

    `checkpoint` is None for initial weights; `continues` is whether the run in the folder continues: a fork is another
    one. `before` is the architecture of the checkpoint, `after` that of the model, `tokenizer` the folder
    of a larger tokenizer.
    """

    cfg: Config
    changes: Changes
    checkpoint: Checkpoint | None
    continues: bool
    before: Architecture | None
    after: Architecture | None
    requested: tuple[str, ...] = ()  # keys typed against what growth made of the run
    tokenizer: Path | None = None

    @property
    def inference_dir(self) -> Path | None:
        """That of the run in which the checkpoint lies."""
        return None if self.checkpoint is None else self.checkpoint.run_dir / "inference"

    @property
    def tokenizer_dir(self) -> Path | None:
        """The folder of the tokenizer, if there is a checkpoint."""
        return self.tokenizer or (saved_tokenizer_dir(self.checkpoint) if self.checkpoint else None)

    @property
    def draws(self) -> bool:
        """Whether the new model has weights that neither the checkpoint has nor an operation makes."""
        if self.before is None or self.after is None or self.before == self.after:
            return False
        same_adapter = self.before.node.get("adapter") == self.after.node.get("adapter")
        return not same_adapter or self.cfg["resume_policy"]["min_match"] < 1


def find_start(
    resume: str | None, folder: Path, group: ProcessGroup, *, read_only: bool = False
) -> tuple[Checkpoint | None, bool]:
    """(checkpoint or None for initial weights, whether the run in the folder continues): a fork is another run.

    Resolves `resume` on rank 0; the other ranks load the same checkpoint. Raises as `resolve_resume`, and
    InputNotFoundError for a checkpoint that lies in no run folder, ConfigError for that of an exported model.
    """
    checkpoint = resolve_resume(resume, folder, read_only=read_only) if group.rank == 0 else None
    path = group.broadcast_text(str(checkpoint.path.absolute()) if checkpoint else "")
    if path and group.rank > 0:
        checkpoint = load_named(path, folder)
    if checkpoint is None:
        return None, resume == "auto" and (folder / JOURNAL).is_file()
    source = checkpoint.run_dir
    refuse_exported(source, resumes=True)
    if not (source / "inference" / "config.yaml").is_file():
        raise InputNotFoundError(
            f"{checkpoint.path}: not in a run folder; {source}/inference/config.yaml not found"
        )
    return checkpoint, source.resolve() == folder.resolve()


def prepare_start(
    requested: Config, folder: Path, group: ProcessGroup, *, read_only: bool = False
) -> Start:
    """Resolves `resume` and the config of the run in a folder; raises as `find_start`, `resume_config`, `start_from`.

    With `read_only` nothing in the folder is changed.
    """
    checkpoint, continues = find_start(requested["resume"], folder, group, read_only=read_only)
    if checkpoint is None:
        return Start(requested, Changes(), None, continues, None, None)
    saved = checkpoint.state["metadata"]
    past = saved["config"], saved["choices"], saved["overrides"], str(checkpoint.path)
    cfg, changes = resume_config(requested, *past, continues=continues)
    requests = requests_against_growth(cfg, checkpoint)
    log_lines(*requests.lines())
    tokenizer = larger_tokenizer(cfg, checkpoint)
    start = start_from(checkpoint, cfg, [*requests.changes], tokenizer)
    return start._replace(changes=changes | requests.changes, continues=continues)


def start_from(
    checkpoint: Checkpoint,
    cfg: Config,
    requested: Sequence[str] = (),
    tokenizer: Path | None = None,
) -> Start:
    """The start of a run with another config from a checkpoint; raises as `growth.resume.plan.plan`.

    Args:
        requested: keys with the values of `cfg` where both configs agree and the run differs, as after growth.
        tokenizer: as in `Start`.
    """
    before, saved = saved_architecture(checkpoint), checkpoint.state["metadata"]["config"]
    checkpoint = without_overridden_settings(checkpoint, cfg, requested)
    start = Start(cfg, Changes(), checkpoint, True, before, before, tuple(requested), tokenizer)
    if cfg["model"] == saved["model"] and tokenizer is None and not requested:
        return start
    size = before.vocab_size
    if tokenizer is not None:
        size = max(size, load_tokenizer(tokenizer).vocab_size)
    return start._replace(after=plan_resume(start, size)[1])


def admitted(start: Start, data: DataModule) -> Checkpoint | None:
    """The checkpoint, for the data of the run; raises as `ResumePolicy.admit`."""
    if start.checkpoint is None:
        return None
    policy = instantiate(start.cfg["resume_policy"], ResumePolicy)
    if start.tokenizer is None:
        return policy.admit(start.checkpoint, data.fingerprint, data.tokenizer.fingerprint)
    return admit_larger_tokenizer(start.checkpoint, data, policy)


def plan_resume(start: Start, vocab_size: int) -> tuple[list[dict[str, Any]], Architecture]:
    """The operations that the overrides of a resume ask for, and the architecture after them; raises as `plan`."""
    from mlxlab.extensions.growth.resume.plan import changed_node, plan

    assert start.checkpoint is not None
    assert start.before is not None
    saved, new = start.checkpoint.state["metadata"]["config"]["model"], start.cfg["model"]
    paths = [split_key(key)[1:] for key in start.requested if key.startswith("model.")]
    node = changed_node(start.before.node, train_new_weights(saved), train_new_weights(new), paths)
    return plan(start.before, node, vocab_size)


def _must_carry_over(start: Start, checkpoint: Checkpoint, state: TrainState) -> bool:
    """Whether a checkpoint is of another model than that of a new state, or names the same arrays in another way."""
    expected = named_parameters(state.model)
    if start.before != state.architecture:
        return True
    return (
        checkpoint.weights.keys()
        != expected.keys()
        == {*normalized_names(checkpoint.weights, expected).values()}
    )


def carry_into(
    state: TrainState, start: Start, checkpoint: Checkpoint, build: Callable[[Architecture], Model]
) -> "CarriedOver | None":
    """The checkpoint for the model of a new state, None if it is of this model; `build` makes others for their arrays.

    Raises:
        ConfigError: an operation does not fit the model, or the optimizer is another one.
        DataError, NotAllowedError: too little of the checkpoint has a place in the model.
    """
    if not _must_carry_over(start, checkpoint, state):
        return None
    from mlxlab.extensions.growth.resume.carry_over import ModelChange, carry_over

    policy = instantiate(start.cfg["resume_policy"], ResumePolicy)
    saved = checkpoint.state["metadata"]["config"]
    before = saved["trainer"]["optimizer"]["_target_"]
    if start.cfg["trainer"]["optimizer"]["_target_"] != before:
        raise ConfigError(f"trainer.optimizer: cannot change together with the model, was {before}")

    def new_arrays(architecture: Architecture) -> Arrays:
        return named_parameters(build(architecture))

    assert start.before is not None
    change = ModelChange(
        start.before,
        *plan_resume(start, state.architecture.vocab_size),
        new_arrays,
        model_seed(start.cfg),
    )
    new = named_parameters(state.model), flatten_arrays(state.optimizer.state)
    live = _swapped(checkpoint, TRAINED, AVERAGE)
    carried = carry_over(live, change, *new, by_shape=policy.optimizer_transfer == "shape")
    carried.report.require(policy.min_match, str(checkpoint.path))
    return carried._replace(
        checkpoint=_swapped(carried.checkpoint, AVERAGE, TRAINED), digest=digest(checkpoint.weights)
    )


def _swapped(checkpoint: Checkpoint, old: str, new: str) -> Checkpoint:
    weights, optimizer = swap_weights(checkpoint.weights, checkpoint.optimizer, old, new)
    return replace(checkpoint, weights=weights, optimizer=optimizer)


def check_fits(checkpoint: Checkpoint, state: TrainState) -> None:
    """Checks the arrays of a checkpoint against a new state; raises CorruptCheckpointError for the first misfit."""
    weights, optimizer = saved_arrays(state)
    check_arrays(checkpoint.weights, weights, "model")
    check_arrays(checkpoint.optimizer, optimizer, "optimizer")


def refuse_misfit(checkpoint: Checkpoint | None, changes: Changes, state: TrainState) -> None:
    """Refuses a checkpoint with right checksums whose arrays do not fit the new state.

    Raises:
        ConfigError: the config was changed, so the checkpoint may be good.
        CheckpointUnavailableError: names an older one, if there is one.
    """
    if checkpoint is None:
        return
    try:
        check_fits(checkpoint, state)
    except CorruptCheckpointError as error:
        path, reason = checkpoint.path, str(error)
        blamed = [key for key in changes if key not in LIMIT_KEYS]
        if blamed:
            keys = ", ".join(blamed)
            message = f"{keys}: changed since {path.name}, which does not fit: {reason}"
            raise ConfigError(message) from None
        older = [each for each in committed_paths(path.parent) if step_of(each) < checkpoint.step]
        advice = ""
        if older:
            advice = f"; {quoted(path_override('resume', older[0]))} takes the one before"
        raise CheckpointUnavailableError(f"{path}: {reason}{advice}") from None
