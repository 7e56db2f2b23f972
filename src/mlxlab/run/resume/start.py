"""Plans the start of a run: from initial weights, from its own checkpoint, or from that of another run (a fork).

A resumed run takes the config of its checkpoint, changed by what was typed on the current command line.
It uses the kernels that the run began with, or is refused; all ranks use the same.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from mlxlab.backend.ops.native import state
from mlxlab.backend.ops.native.activation import (
    VARIABLE,
    Mode,
    activate,
    load_or_build,
    mode_from_environment,
)
from mlxlab.backend.ops.native.state import MLX
from mlxlab.backend.ops.native.toolchain import KernelsUnavailable
from mlxlab.checkpoint.listing import refuse_exported
from mlxlab.checkpoint.state import ChangedSettings
from mlxlab.checkpoint.store import Checkpoint, load_named, resolve_resume
from mlxlab.config.admission import admit, is_trusted, typed_keys
from mlxlab.config.check import check, check_stored_config
from mlxlab.config.hydra.job import cli_overrides, config_folders, group_choices
from mlxlab.config.instantiate import instantiate
from mlxlab.errors import ConfigError, InputNotFoundError, NotAllowedError
from mlxlab.evaluation.parts.data import Config
from mlxlab.evaluation.parts.model import saved_architecture
from mlxlab.past_runs.changes import Changes, merge_for_resume
from mlxlab.record.run_file import read_run
from mlxlab.run.context import RunContext
from mlxlab.run.resume.policy import Plan, ResumePolicy
from mlxlab.schema.dotted_keys import value_at
from mlxlab.terminal.messages import log_lines
from mlxlab.tracking.journal import FILE as JOURNAL
from mlxlab.training.distributed.process_group import ProcessGroup

SETTINGS = {  # config key -> field of `ChangedSettings` that takes its place once an operation changed it
    "trainer.learning_rate": "learning_rate",
    "trainer.eval_every": "eval_every",
    "trainer.eval_batches": "eval_batches",
    "trainer.step.accumulate": "accumulate",
    "data.batch_size": "resizes",
}


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Args:
        plan: what becomes of a checkpoint; None for initial weights.
        continues: the run in the folder continues; false for a new run and for a fork.
        inference_dir: tokenizer and shapes of the run that is resumed; None fits or loads those that the config names.
        epochs: what `trainer.epochs=auto` stands for since the run began; None decides it by the data.
    """

    cfg: Config
    plan: Plan | None = None
    continues: bool = False
    inference_dir: Path | None = None
    epochs: int | None = None

    @property
    def checkpoint(self) -> Checkpoint | None:
        return None if self.plan is None else self.plan.checkpoint

    @property
    def changes(self) -> Changes:
        """What a resume changes: key -> (value in the checkpoint, value from now on)."""
        return {} if self.plan is None else self.plan.changes

    @property
    def fork(self) -> str | None:
        """The full path of the checkpoint of another run that the run starts from."""
        if self.continues or self.checkpoint is None:
            return None
        return str(self.checkpoint.path.absolute())

    @property
    def last_step(self) -> int:
        """The step up to which metrics are kept; -1 where step 0 is logged again."""
        return -1 if self.checkpoint is None else self.checkpoint.step


def plan_start(
    requested: Config, folder: Path, group: ProcessGroup, *, read_only: bool = False
) -> Start:
    """Plans the start of a run in a folder from its composed config.

    Args:
        read_only: nothing in the folder is changed.

    Raises:
        UserError: there is no usable checkpoint, its config is refused, or a key may not change.
    """
    resume = requested["resume"]
    checkpoint = find_checkpoint(resume, folder, group, read_only=read_only)
    if checkpoint is None:
        has_journal = (folder / JOURNAL).is_file()
        return Start(requested, continues=resume == "auto" and has_journal)
    continues = checkpoint.run_dir.resolve() == folder.resolve()
    saved = checkpoint.state["metadata"]
    cfg, changes = resume_config(
        requested,
        saved["config"],
        saved["choices"],
        saved["overrides"],
        str(checkpoint.path),
        continues=continues,
    )

    policy = instantiate(cfg["resume_policy"], ResumePolicy)
    architecture = saved_architecture(checkpoint, is_checked=True)
    plan = policy.plan(Plan(policy, cfg, checkpoint, architecture, architecture, changes))
    checkpoint = without_overridden_settings(checkpoint, cfg)
    return Start(
        cfg,
        replace(plan, checkpoint=checkpoint),
        continues,
        checkpoint.run_dir / "inference",
        saved.get("epochs"),
    )


def find_checkpoint(
    resume: str | None, folder: Path, group: ProcessGroup, *, read_only: bool = False
) -> Checkpoint | None:
    """The checkpoint that `resume` names; None for a new run. Rank 0 decides, the others load the same one.

    Raises:
        CheckpointUnavailableError: none is usable.
        InputNotFoundError: it is missing, or lies in no run folder.
        ConfigError: it is that of an exported model.
    """
    checkpoint = None
    path = ""
    if group.rank == 0:
        checkpoint = resolve_resume(resume, folder, read_only=read_only)
    if checkpoint is not None:
        path = str(checkpoint.path.absolute())
    path = group.broadcast_text(path)
    if path and group.rank > 0:
        checkpoint = load_named(path, folder)
    if checkpoint is None:
        return None
    refuse_exported(checkpoint.run_dir, resumes=True)
    config = checkpoint.run_dir / "inference" / "config.yaml"
    if not config.is_file():
        raise InputNotFoundError(f"{checkpoint.path}: not in a run folder; {config} not found")
    return checkpoint


def resume_config(
    requested: Config,
    saved: object,
    choices: dict[str, str],
    before: list[str],
    name: str,
    *,
    continues: bool,
) -> tuple[Config, Changes]:
    """What the saved config may decide, with the overrides of the current command line, and the keys that these change.

    Args:
        choices: (config group -> option) that were saved with it.
        before: overrides that were saved with it.
        name: of what holds it, for messages.
        continues: the run is the same: it keeps its name where no other one is typed.

    Raises:
        ConfigError: a key may not change.
        NotAllowedError: as `admit`.
    """
    stored = check_stored_config(saved, name)
    if continues:
        requested = requested | {"name": requested["name"] or stored["name"]}
    typed = cli_overrides()
    merged, changes = merge_for_resume(
        stored, requested, typed, (choices, group_choices()), config_folders(), before
    )
    cfg = admit(merged, requested, name, typed_keys(typed), trusted=is_trusted(typed))
    if changes:
        check(cfg)
    return cfg, changes


def without_overridden_settings(checkpoint: Checkpoint, cfg: Config) -> Checkpoint:
    """The checkpoint, where a key that `cfg` sets in another way has its value from now on, not the one of the run."""
    state = checkpoint.state
    saved = state["metadata"]["config"]
    progress = state["progress"]
    unchanged = vars(ChangedSettings())
    reset = {
        name: unchanged[name]
        for key, name in SETTINGS.items()
        if value_at(cfg, key) != value_at(saved, key)
    }
    settings = replace(progress.settings, **reset)
    return replace(checkpoint, state={**state, "progress": replace(progress, settings=settings)})


def use_kernels(start: Start, context: RunContext) -> None:
    """Switches to the kernels of a run.

    Raises:
        ConfigError: `backend.native=require`, and there are none.
        NotAllowedError: the run began with others.
    """
    mode: Mode = start.cfg["backend"]["native"]
    earlier = context.group.broadcast_text(_earlier_kernels(start, context) or "")
    if earlier:
        resume_kernels(earlier, mode)
    else:
        activate(mode)
    own = str(state.current())
    is_other = own != context.group.broadcast_text(own)
    if context.group.all_reduce_max([int(is_other)]) != [0]:
        if earlier or (mode_from_environment() or mode) == "require":
            raise ConfigError(
                "backend.native: the processes of this run have different kernels; expected one machine"
            )
        log_lines("native kernels are not used: the processes of this run have different ones")
        state.deactivate()


def resume_kernels(earlier: str, mode: Mode) -> None:
    """Switches to the kernels that a run used so far, by their text; raises NotAllowedError if this process cannot."""
    variable = mode_from_environment()
    setting = f"backend.native={mode}"
    if variable:
        setting = f"{VARIABLE}={variable}"
        mode = variable
    state.deactivate()
    if earlier == str(MLX):
        if mode == "require":
            raise NotAllowedError(
                f"{setting}: the run began without native kernels, and continues without them"
            )
        return
    if mode == "off":
        raise NotAllowedError(
            f"{setting}: the run began with kernels {earlier}, and continues with them"
        )
    try:
        if str(load_or_build()) == earlier:
            return
        reason = f"here they are {state.current()}"
    except KernelsUnavailable as error:
        reason = f"which are not available: {error}"
    state.deactivate()
    raise NotAllowedError(
        f"the run began with kernels {earlier}; {reason}; start a new run in another folder"
    )


def mode_to_reproduce(earlier: str) -> Mode:
    """The mode in which a run is trained again with the kernels of an earlier one, which are built if need be."""
    if not earlier.startswith("native"):
        return "off"
    try:
        load_or_build()
    except KernelsUnavailable as reason:
        log_lines(f"kernels {earlier} are not available: {reason}")
    return "auto"


def kernels_of_run(folder: Path) -> str | None:
    """The kernels that the record of a run folder names; None if its training has not begun."""
    try:
        return read_run(folder).code.kernels or None
    except InputNotFoundError:
        return None


def _earlier_kernels(start: Start, context: RunContext) -> str | None:
    """The kernels of the run that continues, as rank 0 knows them; None for a new one."""
    if start.checkpoint is not None and start.continues:
        return start.checkpoint.state["metadata"]["kernels"]
    earlier = None
    if start.cfg["resume"] == "auto":  # The run may have ended before a checkpoint.
        earlier = kernels_of_run(context.run_dir)
    return earlier or context.kernels
