"""Saves the run: at a cadence, at every new best, and at the end."""

import shutil
import sys
import threading
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlxlab.checkpoint.digest import state_digest
from mlxlab.checkpoint.store import Checkpoint, CheckpointStore, step_of
from mlxlab.constraints import Size
from mlxlab.errors import CannotCreateError, WriteError
from mlxlab.training.optim.ema import swap_for_save
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.state import Run


class Checkpointer:
    """Commits checkpoints under `<run folder>/checkpoints`, each a folder that is complete or absent.

    Args:
        every: updates between saves; null saves at every evaluation. The best and the last are always saved.
        keep: how many of the newest stay; the best one stays besides.
        background: write while training goes on; one save at a time, the next one waits.
    """

    def __init__(self, every: Size | None, keep: Size, background: bool, *, folder: Path) -> None:
        self.every, self.background = every, background
        self.store = CheckpointStore(folder / "checkpoints", keep)
        self._writer: threading.Thread | None = None
        self._warned = False

    def on_start(self, run: Run) -> None:
        self.store.clean()
        run.reload, run.rescue = self._reload, lambda: self._rescue(run)
        self._say_what_it_needs(run)

    def on_step(self, run: Run) -> None:
        due = run.step % self.every == 0 if self.every else run.evaluation is not None
        expected, run.save = run.save, False  # before the save: who asks during it asks for the next one
        if due or run.improved or expected:
            self._save(run)

    def on_end(self, run: Run) -> None:
        """The last state is always saved; under a name of its own if a signal ended the run before its time."""
        self.finish()
        if not self._has(run.step):
            self._save(run)
            self.finish()
        if not self._has(run.step):
            raise WriteError(f"{self.store.folder}: the last checkpoint, of step {run.step}, could not be saved")
        with suppress(OSError):
            self.store.retain(run.best_step)  # a run killed between its last save and this has yet to

    def _has(self, step: int) -> bool:
        return step in map(step_of, self.store.steps())

    def _say_what_it_needs(self, run: Run) -> None:
        """Before training, not when the disk is full."""
        weights, optimizer, _ = checkpoint_payload(run)
        size = sum(array.nbytes for array in (*weights.values(), *optimizer.values()))
        need = (self.store.keep + 2) * size  # the newest, the best, and the one being written
        free = shutil.disk_usage(self.store.folder.parent).free
        if need > free:
            print(
                f"{self.store.folder}: checkpoints need up to {need / 1e6:.0f} MB, {free / 1e6:.0f} MB are free:"
                " lower callbacks.checkpointing.keep, or make room",
                file=sys.stderr,
            )

    def _save(self, run: Run) -> None:
        run.before_save()
        weights, optimizer, state = checkpoint_payload(run)
        mx.eval(weights, optimizer)  # before the first update the optimizer's are lazy: no other thread can make them
        # Arrays never change in place, so holding them is a snapshot; the rest is copied.
        work = partial(self._write, run.step, weights, optimizer, deepcopy(state), run.best_step, run.signal != 0)
        self.finish()
        if not self.background:
            work()
            return
        self._writer = threading.Thread(target=work, name="checkpoint")
        self._writer.start()

    def _write(self, step: int, weights: dict, optimizer: dict, state: dict, best_step: int, emergency: bool) -> None:
        """A save that fails is not the end of the run: the one before is intact, and the next may succeed."""
        try:
            if not all_finite(weights, optimizer):
                raise RuntimeError("weights or optimizer hold numbers that are not finite")
            self.store.save(step, weights, optimizer, state, best_step=best_step, emergency=emergency)
            self._warned = False
        except (OSError, RuntimeError, CannotCreateError) as error:
            if not self._warned:
                reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
                print(f"checkpoint of step {step} not saved: {reason}; training goes on", file=sys.stderr)
            self._warned = True

    def finish(self) -> None:
        """Waits for the save that is being written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def _rescue(self, run: Run) -> str:
        """Saves what was before the step that could not be finished; says so, in words to end a sentence with."""
        self.finish()
        if not self._has(run.step):
            run.before_save()
            weights, optimizer, state = checkpoint_payload(run)
            try:
                self.store.save(
                    run.step, weights, optimizer, state | {"data": run.place}, best_step=run.best_step, emergency=True
                )
            except (OSError, RuntimeError, CannotCreateError) as error:
                return f"; step {run.step} could not be saved ({error})"
        return f"; step {run.step} is saved, go on with resume=auto"

    def _reload(self) -> Checkpoint:
        self.finish()
        return self.store.load()


def checkpoint_payload(run: Run) -> tuple[dict, dict, dict]:
    """What a checkpoint holds: weights by path, optimizer state by path, and the rest as JSON."""
    assert run.optimizer is not None
    weights, optimizer = swap_for_save(dict(tree_flatten(run.model.parameters())), flatten_arrays(run.optimizer.state))
    return weights, optimizer, run.state_dict() | {"metadata": run.facts}


def all_finite(*groups: dict[str, mx.array]) -> bool:
    """In NumPy: the saving thread must not compute on the device. What is trained is kept in float32."""
    floats = [array for group in groups for array in group.values() if array.dtype in (mx.float32, mx.float16)]
    return all(np.isfinite(np.array(array)).all() for array in floats)


def run_state_digest(run: Run) -> str:
    """The `final_state` that every run prints at its end."""
    weights, optimizer, state = checkpoint_payload(run)
    return state_digest(weights, optimizer, {"step": state["step"], "data": state["data"]})
