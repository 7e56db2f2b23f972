"""Seconds to write and to read a checkpoint of model and optimizer: mlxlab and `torch.save`, `torch.load`."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.alternate import Trial, alternate, table
from benchmarks.steps.peer_process import peers
from benchmarks.subject import Subject
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.schema.constraints import Size
from mlxlab.training.checkpointer import checkpoint_payload, saved_arrays


def checkpoints(size: str = "small", compare_with: str = "", rounds: Size = 7) -> str:
    """mlxlab writes to the disk (fsync), with checksums that it verifies on reading; PyTorch does neither by itself."""
    names = peers(compare_with, ["PyTorch"])
    subject = Subject(size, rows=8, length=48)
    subject.step()
    arrays = saved_arrays(subject.state)
    total = sum(array.nbytes for leaves in arrays for array in leaves.values())
    with tempfile.TemporaryDirectory() as folder:
        variants = mlxlab_variants(subject, Path(folder))
        if "PyTorch" in names:
            variants |= torch_variants(arrays, Path(folder) / "state.pt")
        trials = alternate(variants, rounds)
    return table(
        f"checkpoint of {total / 1e6:.0f} MB, model/size={size}; medians of {rounds}",
        _rows(trials, total),
    )


def mlxlab_variants(subject: Subject, folder: Path) -> dict[str, Callable[[], object]]:
    payload = checkpoint_payload(subject.context, subject.state)
    mx.eval(payload.weights, payload.optimizer)
    store = CheckpointStore(folder / "checkpoints", keep=1)

    def read() -> None:
        checkpoint = store.load()
        mx.eval(checkpoint.weights, checkpoint.optimizer)

    return {"mlxlab write": lambda: store.save(1, *payload), "mlxlab read": read}


def torch_variants(arrays: tuple[Any, ...], path: Path) -> dict[str, Callable[[], object]]:
    """The same arrays as tensors."""
    from benchmarks.steps.torch_decoder import torch_module

    torch = torch_module()

    def tensor(array: mx.array) -> Any:
        return torch.from_numpy(
            np.array(array.astype(mx.int64) if array.dtype == mx.uint64 else array)
        )

    state = [{name: tensor(array) for name, array in leaves.items()} for leaves in arrays]

    def write_durably() -> None:
        torch.save(state, path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())

    return {
        "PyTorch write": lambda: torch.save(state, path),
        "PyTorch write, fsync": write_durably,
        "PyTorch read": lambda: torch.load(path, weights_only=True),
    }


def _rows(trials: list[Trial], total: int) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [("operation", "seconds", "MB/s", "CPU s")]
    for trial in trials:
        rate = f"{total / 1e6 / trial.median:,.0f}"
        lines.append((trial.name, f"{trial.median:.3f}", rate, f"{trial.cpu_median:.3f}"))
    return lines
