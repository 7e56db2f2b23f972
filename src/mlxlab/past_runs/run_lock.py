"""`run.lock` of a run folder: the origin of the run, to train it again, and some of its losses, to compare with."""

import platform
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import read_json
from mlxlab.record import provenance
from mlxlab.record.run_file import of_sweep
from mlxlab.terminal.wording import one_line

FILE = "run.lock"
MAX_BYTES = 4 * 2**20

Losses = dict[str, float | None]  # step -> mean over its targets; None: not finite


class Outcome(TypedDict):
    """The end of a run: `state` is the digest of weights and optimizer after `steps`."""

    steps: int
    state: str
    objective: str
    best: float | None


class RunLock(TypedDict):
    """`run.lock`. The data, the tokenizer, teachers and initial weights are known by their fingerprints.

    Attributes:
        config: resolved.
        machine: device, BLAS and its threads, kernels, processor, number of processes.
        forked_from: the checkpoint of another run that the run started from.
        changed_at: the steps at which a resume changed the config; `config` is the last one.
    """

    format: Literal[1]
    config: dict[str, Any]
    choices: dict[str, str]
    overrides: list[str]
    data: str
    tokenizer: str
    teachers: dict[str, str]
    initial_weights: dict[str, str]
    versions: dict[str, str]
    machine: dict[str, str]
    code: provenance.Code
    forked_from: str | None
    changed_at: list[int]
    losses: Losses
    outcome: NotRequired[Outcome]


def read_lock(path: Path) -> RunLock:
    """The lock file of a run folder, or at a path. Anyone may have written it: nothing in it is run by this.

    Raises:
        InputNotFoundError: there is none.
        DataError: it is damaged, or of another format.
    """
    file = path / FILE if path.is_dir() else path
    try:
        lock = read_json(file, RunLock, max_bytes=MAX_BYTES)
    except InputNotFoundError:
        expected = f"expected a run folder or its {FILE}"
        if (path / "rounds").is_dir():
            expected += "; each of its rounds has its own"
        raise InputNotFoundError(f"{file}: not found; {expected}{of_sweep(path)}") from None
    except DataError as error:
        raise DataError(f"{error}; expected a {FILE} of this version") from None
    source = lock["forked_from"]
    if source is not None and not source.startswith("/"):  # An address of a cloud is no path.
        expected = "expected the path of a checkpoint"
        raise DataError(f"{file}: forked_from: {one_line(source, 60)}: {expected}")
    for step in lock["losses"]:
        if not (step.isascii() and step.isdecimal() and len(step) < 16):
            raise DataError(f"{file}: losses: {one_line(step, 40)}: expected a step")
    return lock


def versions() -> dict[str, str]:
    """The versions of Python, mlxlab and the packages that it needs."""
    return {"python": platform.python_version(), **provenance.dependency_versions()}


def machine(processes: int) -> dict[str, str]:
    """What else results may depend on. MLX has been imported."""
    from mlxlab import backend
    from mlxlab.backend.openblas import blas_threads
    from mlxlab.backend.ops.native import state as kernels

    description = backend.describe()
    threads = blas_threads() if description["blas"] == "openblas" else 1
    return {
        **description,
        "BLAS threads": str(threads),
        "kernels": str(kernels.current()),
        "processor": provenance.cpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "processes": str(processes),
    }
