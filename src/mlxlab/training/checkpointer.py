"""Saves the training state: at a cadence, at every new best, on request, and at the end."""

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxlab.checkpoint.arrays import AVERAGE, TRAINED, Arrays, swap_weights, update_hash
from mlxlab.checkpoint.names import FOLDER, step_of
from mlxlab.checkpoint.state import SavedState
from mlxlab.checkpoint.store import Checkpoint, CheckpointStore
from mlxlab.errors import CheckpointUnavailableError, WriteError
from mlxlab.models.adapters.freeze import adapted_layers, trainable_names
from mlxlab.schema.constraints import Size
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.distributed.sharding import GatheredArrays
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.state import NO_STEP, StepResult, TrainState

logger = logging.getLogger(__name__)


class Payload(NamedTuple):
    """The content of a checkpoint: weights and optimizer state by path, all other state, and weights that it shares."""

    weights: Arrays | GatheredArrays
    optimizer: Arrays | GatheredArrays
    state: SavedState
    frozen: Arrays


class NoCheckpointer(Callback):
    """Saves nothing, but hands its shards to rank 0. With a run folder it can load what rank 0 saves there."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if state.sharding.is_sharded and saves_now(context, state):
            payload = checkpoint_payload(context, state)
            finite_on_all_ranks(context, state)
            finish_gathering(payload)

    def on_end(self, context: FitContext, state: TrainState) -> None:
        self.on_step(context, state, NO_STEP)

    def save_interrupted(self, context: FitContext, state: TrainState) -> str:
        return ""

    def load_last(self) -> Checkpoint:
        if self.folder is None:
            raise CheckpointUnavailableError("this run saves no checkpoints")
        return CheckpointStore(self.folder / FOLDER).load()


class Checkpointer:
    """Commits checkpoints under `<run folder>/checkpoints`, each a folder that is complete or absent.

    Args:
        every_steps: steps between saves; null saves at every evaluation. The best and the last are always saved.
        keep: number of newest checkpoints to keep, in addition to the best.
        background: write while training continues; one save at a time, the next one waits.
    """

    def __init__(
        self, every_steps: Size | None, keep: Size, background: bool, *, folder: Path
    ) -> None:
        self.every_steps = every_steps
        self.background = background
        self.store = CheckpointStore(folder / FOLDER, keep)
        self._writer: threading.Thread | None = None
        self._warned = False

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self.store.clean()
        weights, optimizer = saved_arrays(state)
        weights, frozen = split_frozen(state.model, weights)
        size = sum(array.nbytes for array in (*weights.values(), *optimizer.values()))
        if state.sharding.is_sharded:
            size *= context.group.size
        need = (self.store.keep + 2) * size  # the newest, the best, and that being written
        need += sum(array.nbytes for array in frozen.values())
        free = shutil.disk_usage(self.store.folder.parent).free
        if need > free:
            logger.warning(
                f"{self.store.folder}: checkpoints need up to {need / 1e6:.0f} MB, {free / 1e6:.0f} MB are free:"
                " lower checkpointing.keep, or free some space"
            )

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        step = state.progress.step
        control = context.control
        is_evaluated = result.evaluation is not None
        due = is_evaluated
        if self.every_steps:
            due = step % self.every_steps == 0
        is_best = is_evaluated and state.history.best_step == step
        # Cleared before the save: a request that arrives during it asks for another one.
        requested = control.save_requested
        control.save_requested = False
        if saves_now(context, state, due or is_best or requested):
            self._save(context, state)

    def on_end(self, context: FitContext, state: TrainState) -> None:
        """Always saves the last state; as an emergency checkpoint if a signal ended the run early."""
        step = state.progress.step
        if context.control.stop_signal:
            logger.info(f"saving the checkpoint of step {step} ...")
        self.finish()
        if saves_now(context, state, not self._has(step)):
            self._save(context, state)
            self.finish()
        if not self._has(step):
            raise WriteError(
                f"{self.store.folder}: the last checkpoint, of step {step}, could not be saved"
            )
        with suppress(OSError):
            self.store.retain(
                state.history.best_step
            )  # not done yet if a run was killed after its last save

    def finish(self) -> None:
        """Waits for the save in the background."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def save_interrupted(self, context: FitContext, state: TrainState) -> str:
        """Saves the state before a step that could not be finished; returns the end of a message that says so."""
        self.finish()
        step = state.progress.step
        if not self._has(step) and state.sharding.is_sharded:
            saved = max(map(step_of, self.store.paths()), default=0)
            return f"; its shards are lost, continue from step {saved} with resume=auto"
        if not self._has(step):
            payload = checkpoint_payload(context, state)
            payload.state["data"] = state.data_state  # the iterator is already one batch ahead
            try:
                self.store.save(step, *payload, best_step=state.history.best_step, emergency=True)
            except (OSError, RuntimeError) as error:
                return f"; step {step} could not be saved ({error})"
        return f"; step {step} is saved, continue with resume=auto"

    def load_last(self) -> Checkpoint:
        """The newest good checkpoint; raises CheckpointUnavailableError if there is none."""
        self.finish()
        return self.store.load()

    def _has(self, step: int) -> bool:
        return step in map(step_of, self.store.paths())

    def _save(self, context: FitContext, state: TrainState) -> None:
        payload = checkpoint_payload(context, state)
        best_step = state.history.best_step
        emergency = context.control.stop_signal != 0
        write = partial(self._write, state.progress.step, best_step=best_step, emergency=emergency)
        self.finish()
        if state.sharding.is_sharded:  # array by array, in this thread: the other ranks take part
            write(payload, finite=finite_on_all_ranks(context, state))
            finish_gathering(payload)
            return
        # Before the first step the optimizer's arrays are lazy: no other thread can compute them.
        mx.eval(payload.weights, payload.optimizer, payload.frozen)
        # Arrays never change in place, so holding them is a snapshot; all other state is copied.
        payload = payload._replace(state=deepcopy(payload.state))
        if self.background:
            self._writer = threading.Thread(target=write, args=(payload,), name="checkpoint")
            self._writer.start()
        else:
            write(payload)

    def _write(
        self,
        step: int,
        payload: Payload,
        *,
        best_step: int,
        emergency: bool,
        finite: bool | None = None,
    ) -> None:
        """A failed save does not end the run: the previous one is intact, and the next one may succeed."""
        try:
            if finite is None:
                finite = is_finite(payload.weights) and is_finite(payload.optimizer)
            if not finite:
                raise RuntimeError("weights or optimizer state are not finite")
            self.store.save(step, *payload, best_step=best_step, emergency=emergency)
            self._warned = False
        except (OSError, RuntimeError) as error:
            if not self._warned:
                reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
                logger.warning(f"checkpoint of step {step} not saved: {reason}; training continues")
            self._warned = True


def saves_now(context: FitContext, state: TrainState, due: bool = False) -> bool:
    """Whether a save is due on rank 0: the ranks that hold shards learn it from there."""
    if not state.sharding.is_sharded:
        return due
    return context.group.all_reduce_max([due]) == [1]


def finish_gathering(payload: Payload) -> None:
    """Takes part in gathering the arrays that this process did not read."""
    for arrays in (payload.weights, payload.optimizer):
        if isinstance(arrays, GatheredArrays):
            arrays.finish()


def is_finite(arrays: Mapping[str, mx.array]) -> bool:
    # NumPy, because a background thread must not compute on the device. Trained weights are float32.
    floats = [array for array in arrays.values() if array.dtype in (mx.float32, mx.float16)]
    return all(np.isfinite(np.array(array)).all() for array in floats)


def finite_on_all_ranks(context: FitContext, state: TrainState) -> bool:
    finite = all(map(is_finite, saved_arrays(state)))
    return context.group.all_reduce_max([not finite]) == [0]


def saved_arrays(state: TrainState) -> tuple[Arrays, Arrays]:
    """Weights and optimizer state by path, as a checkpoint holds them."""
    weights = dict(tree_flatten(state.model.parameters())) | state.replaced_weights
    return swap_weights(weights, flatten_arrays(state.optimizer.state), AVERAGE, TRAINED)


def checkpoint_payload(context: FitContext, state: TrainState) -> Payload:
    """The content of a checkpoint; that of shards is gathered when it is read."""
    state.before_save()
    weights, optimizer = saved_arrays(state)
    weights, frozen = split_frozen(state.model, weights)
    whole = state.sharding.whole(weights), state.sharding.whole(optimizer)
    return Payload(*whole, {**state.state_dict(), "metadata": context.metadata, "base": ""}, frozen)


def split_frozen(model: nn.Module, weights: Arrays) -> tuple[Arrays, Arrays]:
    """Weights of the checkpoint itself, and those that it shares: the frozen ones of a model with adapters."""
    trained = set(weights)
    if adapted_layers(weights):
        trained = set(trainable_names(model))
    own = {path: array for path, array in weights.items() if path in trained}
    return own, {path: array for path, array in weights.items() if path not in trained}


def final_state_digest(state: TrainState) -> str:
    """The `final_state` that every run prints at its end: SHA-256 of step, data position, weights and optimizer."""
    position = {"step": state.progress.step, "data": state.data.state_dict()}
    result = hashlib.sha256(json.dumps(position, sort_keys=True).encode())
    for arrays in saved_arrays(state):
        update_hash(result, state.sharding.whole(arrays))
    return result.hexdigest()
