"""Trains a run again, to compare: from each checkpoint to the next bit for bit, or its `run.lock` in a new folder."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxlab.checkpoint.arrays import digest
from mlxlab.checkpoint.names import FOLDER
from mlxlab.checkpoint.store import Checkpoint, CheckpointStore, load_named
from mlxlab.config.admission import (
    admit,
    admitted_config,
    own_callbacks,
    refuse_addresses,
    refuse_left_out,
)
from mlxlab.config.check import check_stored_config
from mlxlab.config.hydra.compose import compose_checked
from mlxlab.config.instantiate import instantiate
from mlxlab.errors import CheckpointUnavailableError, ConfigError, InputNotFoundError, UserError
from mlxlab.evaluation.parts.data import Config
from mlxlab.evaluation.parts.model import saved_architecture
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import refuse_links
from mlxlab.past_runs.changes import CommandLine, changed_steps
from mlxlab.past_runs.collect_record import VERIFICATION, VerifyResult, write_run_report
from mlxlab.past_runs.run_lock import Comparison, RunLock, compare, read_lock
from mlxlab.run.context import remove_unused
from mlxlab.run.entry import run_config
from mlxlab.run.resume.load import fit_checkpoint
from mlxlab.run.resume.policy import Plan, ResumePolicy
from mlxlab.run.resume.start import (
    Start,
    mode_to_reproduce,
    resume_kernels,
    without_overridden_settings,
)
from mlxlab.run.session import build_callbacks, build_session
from mlxlab.terminal.program import run_dir_override
from mlxlab.terminal.wording import one_line
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.checkpointer import saved_arrays
from mlxlab.training.distributed.launch_env import check_parallel
from mlxlab.training.state import StepResult, TrainState
from mlxlab.views.pages import REPORT

logger = logging.getLogger(__name__)
FILE = "reproduction.json"
REPLACED = ("tracking", "cloud", "signals", "resume", "rerun")  # keys that a reproduction decides


def verify_run(folder: Path, from_start: bool = False, *, trusted: bool = False) -> Iterator[str]:
    """Verifies a run folder; yields a line for each check that holds.

    First the checksums of every checkpoint are computed. Then each is compared, weights and optimizer, bit for bit,
    with the result of training from the one before it; the first from step 0, if `from_start` or if it is the only one.

    The config of a checkpoint decides what it may, all if it is `trusted`. What was found is recorded in `verify.json`, and in `report.html` if there is one.

    Raises:
        NotAllowedError: the kernels that the run used are not available, or the run has callbacks of the user's own.
        CheckpointUnavailableError: a checkpoint is damaged, or differs from what training gives; names the first.
        InputNotFoundError: the folder holds no run with checkpoints.
    """
    refuse_links(folder)
    paths = CheckpointStore(folder / FOLDER).paths()[::-1]
    if not paths:
        raise InputNotFoundError(f"{folder}: no run folder with checkpoints")
    checkpoints = []
    for path in paths:
        checkpoints.append(load_named(str(path), folder))
        yield f"{path.name}: checksums hold"
    same: list[int] = []  # steps
    pairs = list(zip([None, *checkpoints], checkpoints, strict=False))
    if not from_start and len(pairs) > 1:
        del pairs[0]
    for start, end in pairs:
        changed = _changes_between(folder, start, end)
        if changed:
            yield f"{end.path.name}: not compared, the config changed at step {changed[0]}, whose checkpoint is gone"
            continue
        difference = _first_difference(folder, start, end, _config(end, trusted=trusted))
        since = f"step {start.step}" if start else "the start"
        if difference:
            message = f"{end.path.name}: {difference} is not what training from {since} gives"
            _record(folder, same, message)
            raise CheckpointUnavailableError(message)
        same.append(end.step)
        yield f"{end.path.name}: bitwise what training from {since} gives"
    _record(folder, same)


def _record(folder: Path, steps: list[int], difference: str = "") -> None:
    """Writes `verify.json`, and the report again if there is one; a folder that cannot be written stays as it is."""
    try:
        write_json(
            folder / VERIFICATION, VerifyResult(format=1, steps=steps, difference=difference[:2000])
        )
        if (folder / REPORT).is_file():
            write_run_report(folder)
    except OSError as error:
        logger.warning(f"{folder / VERIFICATION}: not written: {error.strerror or error}")
    except UserError as error:
        logger.warning(str(error))


def _changes_between(folder: Path, start: Checkpoint | None, end: Checkpoint) -> list[int]:
    """The steps between two checkpoints at which a resume changed what is trained; `end` alone has the new config."""
    begin = 0
    if start is not None:
        first = start.state["metadata"]
        last = end.state["metadata"]
        if all(first[key] == last[key] for key in ("config", "overrides")):
            return []
        begin = start.step
    return [step for step in changed_steps(folder) if begin < step <= end.step]


def _config(checkpoint: Checkpoint, *, trusted: bool) -> Config:
    name = str(checkpoint.path)
    config = check_stored_config(checkpoint.state["metadata"]["config"], name)
    if trusted:
        return config
    refuse_left_out(own_callbacks(config), name)
    refuse_addresses(config, {}, name, ())
    return admitted_config(config)


def _first_difference(folder: Path, start: Checkpoint | None, end: Checkpoint, cfg: Config) -> str:
    """The first array that differs between `end` and training from `start`; "" if none does."""
    weights, optimizer = saved_arrays(_retrain_between(folder, start, end, cfg))
    pairs = {"model": (weights, end.weights), "optimizer": (optimizer, end.optimizer)}
    for owner, (trained, saved) in pairs.items():
        for name in sorted({*trained, *saved}):
            is_in_both = name in trained and name in saved
            if not is_in_both or digest({name: trained[name]}) != digest({name: saved[name]}):
                return f"{owner} {name}"
    return ""


def _retrain_between(
    folder: Path, start: Checkpoint | None, end: Checkpoint, cfg: Config
) -> TrainState:
    """The state at the step of `end`, trained with its config from the state of `start`."""
    resume_kernels(end.state["metadata"]["kernels"], cfg["backend"]["native"])
    plan = None
    if start is not None:
        plan = _plan_again(start, cfg)
    begin = Start(
        cfg,
        plan,
        inference_dir=folder / "inference",
        epochs=end.state["metadata"].get("epochs"),
    )
    session = build_session(begin, folder)
    state = session.init_state()
    start, _ = fit_checkpoint(begin, session, state)
    # Callbacks that change training run on all ranks.
    callbacks = [each for each in build_callbacks(cfg, folder) if each.runs_on_all_ranks]
    return session.fit(state, [*callbacks, _StopAt(end.step)], checkpoint=start)


def _plan_again(start: Checkpoint, cfg: Config) -> Plan:
    """The plan of the resume between two checkpoints, which may have changed the model."""
    policy = instantiate(cfg["resume_policy"], ResumePolicy)
    architecture = saved_architecture(start)
    plan = policy.plan(Plan(policy, cfg, start, architecture, architecture, changes={}))
    return replace(plan, checkpoint=without_overridden_settings(start, cfg))


class _StopAt(Callback):
    """Ends training after a step."""

    runs_on_all_ranks = True

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if state.progress.step >= self.step:
            context.control.stop_reason = "verified"


def reproduce(path: Path, folder: Path, tolerance: float, *, trusted: bool = False) -> Comparison:
    """Trains the run of a run folder or lock file again in `folder`, which does not exist yet.

    Writes the comparison to `reproduction.json` there. Nothing is tracked or uploaded, whatever the lock says; if it is
    trusted, its callbacks may write elsewhere.

    Raises:
        InputNotFoundError, DataError: there is no lock, or it is damaged; or the same for what the run reads.
        NotAllowedError: it asks for a target that may not be built; or as `admit`.
        ConfigError: the run started from a checkpoint of another run.
        UserError: as `run_config`.
    """
    lock = read_lock(path)
    config = config_to_reproduce(lock, str(path), trusted=trusted)
    if lock["changed_at"]:
        changed = ", ".join(map(str, lock["changed_at"][:5]))
        logger.warning(
            f"{path}: a resume changed the config at step {changed}; the new run starts with the last one"
        )
    check_parallel(config["trainer"]["parallel"])
    config["backend"] |= {"native": mode_to_reproduce(lock["machine"].get("kernels", ""))}
    first = [*lock["overrides"], run_dir_override(folder)]
    command = CommandLine(lock["overrides"], lock["choices"], first)
    try:
        run_config(config, folder, command=command)
    except UserError:
        remove_unused(folder)
        raise
    comparison = compare(lock, read_lock(folder), tolerance)
    write_json(folder / FILE, comparison)
    return comparison


def config_to_reproduce(lock: RunLock, name: str, *, trusted: bool = False) -> dict[str, Any]:
    """What the config of a lock, called `name` in messages, may decide; raises as `admit`."""
    if lock["forked_from"] is not None:
        start = one_line(lock["forked_from"], 200)
        raise ConfigError(
            f"{name}: started from the checkpoint {start}, which a lock does not hold; "
            "train from it again with mlxlab train rerun=RUN, then compare with mlxlab runs diff"
        )
    stored = check_stored_config(lock["config"], name)
    current = compose_checked(["tracking=none"])
    config = admit(stored, current, name, REPLACED, trusted=trusted)
    return {**config, **{key: current[key] for key in REPLACED}}
