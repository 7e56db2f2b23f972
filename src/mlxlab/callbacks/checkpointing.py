"""Saves the run: at a cadence, at every new best, and at the end."""

import shutil
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from mlxlab.bounds import Size
from mlxlab.checkpoint.state_hash import final_state
from mlxlab.checkpoint.store import Store, step_of
from mlxlab.errors import WriteFailed
from mlxlab.training.optimizer import flat
from mlxlab.training.run import Run


class Checkpointing:
    """Commits checkpoints under `<run folder>/checkpoints`, each a folder that is complete or absent.

    Args:
        every: updates between saves; null saves at every evaluation. The best and the last are always saved.
        keep: how many of the newest stay; the best one stays besides.
    """

    def __init__(self, every: Size | None, keep: Size, *, folder: Path) -> None:
        self.every = every
        self.store = Store(folder / "checkpoints", keep)
        self._warned = False

    def on_start(self, run: Run) -> None:
        self.store.clean()
        run.reload = self.store.load
        self._say_what_it_needs(run)

    def on_step(self, run: Run) -> None:
        due = run.step % self.every == 0 if self.every else run.evaluation is not None
        wanted, run.save = run.save, False  # before the save: who asks during it asks for the next one
        if due or run.improved or wanted:
            self._save(run)

    def on_end(self, run: Run) -> None:
        """The last state is always saved; under a name of its own if a signal ended the run before its time."""
        if not self._has(run.step):
            self._save(run)
        if not self._has(run.step):
            raise WriteFailed(f"{self.store.folder}: the last checkpoint, of step {run.step}, could not be saved")

    def _has(self, step: int) -> bool:
        return step in map(step_of, self.store.steps())

    def _say_what_it_needs(self, run: Run) -> None:
        """Before training, not when the disk is full."""
        weights, optimizer, _ = parts(run)
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
        """A save that fails is not the end of the run: the one before is intact, and the next may succeed."""
        weights, optimizer, state = parts(run)
        try:
            if not all_finite(weights, optimizer):
                raise RuntimeError("weights or optimizer hold numbers that are not finite")
            self.store.save(run.step, weights, optimizer, state, best_step=run.best_step, emergency=run.signal != 0)
            self._warned = False
        except (OSError, RuntimeError) as error:
            if not self._warned:
                reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
                print(f"checkpoint of step {run.step} not saved: {reason}; training goes on", file=sys.stderr)
            self._warned = True


def parts(run: Run) -> tuple[dict, dict, dict]:
    """What a checkpoint holds: weights by path, optimizer state by path, and the rest as JSON."""
    assert run.optimizer is not None
    return (
        dict(tree_flatten(run.model.parameters())),
        flat(run.optimizer.state),
        run.state_dict() | {"facts": run.facts},
    )


def all_finite(*groups: dict[str, mx.array]) -> bool:
    floats = [array for group in groups for array in group.values() if mx.issubdtype(array.dtype, mx.floating)]
    return bool(mx.all(mx.stack([mx.all(mx.isfinite(array)) for array in floats])))


def hash_of(run: Run) -> str:
    """The `final_state` that every run prints at its end."""
    weights, optimizer, state = parts(run)
    return final_state(weights, optimizer, {"step": state["step"], "data": state["data"]})
