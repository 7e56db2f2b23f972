"""`run.lock` of a run folder: the origin of the run, to train it again, and some of its losses; compares two of them."""

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
Result = Literal["bit-exact", "within tolerance", "diverged"]


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


class Difference(TypedDict):
    """Something on which results may depend; None: one of the runs did not have it."""

    what: str
    before: str | None
    now: str | None


class Comparison(TypedDict):
    """A run compared with the one that it reproduces.

    Attributes:
        steps: how many losses were compared; `last_step` is the last of them.
        complete: both ended after the same step, so their final states were compared.
        diverged_at: the first step whose loss differs by more than the tolerance.
        largest: of the relative differences of the losses and the best value of the objective; None: infinite.
    """

    result: Result
    steps: int
    last_step: int
    complete: bool
    diverged_at: int | None
    largest: float | None
    tolerance: float
    differences: list[Difference]


def compare(before: RunLock, now: RunLock, tolerance: float) -> Comparison:
    """Compares a run with the one that it reproduces.

    Args:
        tolerance: of the relative difference of a loss, and of the best value of the objective.

    Raises:
        DataError: there is no step whose loss both have.
    """
    first = before["losses"]
    second = now["losses"]
    steps = sorted(map(int, first.keys() & second.keys()))
    if not steps:
        raise DataError("run.lock: no losses to compare; the run ended before its first step")
    relative = {step: _relative(first[str(step)], second[str(step)]) for step in steps}
    end = before.get("outcome")
    new_end = now.get("outcome")
    complete = False
    same_state = True
    if end is not None and new_end is not None and end["steps"] == new_end["steps"]:
        complete = True
        same_state = end["state"] == new_end["state"]
        best = _relative(end["best"], new_end["best"])
        relative[end["steps"]] = max(best, relative.get(end["steps"], 0.0))
    largest = max(relative.values())
    result: Result = "within tolerance"
    diverged_at = min((step for step in relative if relative[step] > tolerance), default=None)
    if largest == 0 and same_state:
        result = "bit-exact"
    elif diverged_at is not None or tolerance == 0:
        result = "diverged"
        diverged_at = diverged_at or steps[-1]
    return {
        "result": result,
        "steps": len(steps),
        "last_step": steps[-1],
        "complete": complete,
        "diverged_at": diverged_at,
        "largest": largest if largest < float("inf") else None,
        "tolerance": tolerance,
        "differences": differences(before, now),
    }


def _relative(before: float | None, now: float | None) -> float:
    """The difference as a multiple of the earlier value; infinite where only one of them is finite."""
    if before == now:
        return 0.0
    if before is None or now is None:
        return float("inf")
    return abs(now - before) / max(abs(before), 1e-12)


def differences(before: RunLock, now: RunLock) -> list[Difference]:
    """What differs between two runs other than their results, the likeliest reason first."""
    old = _facts(before)
    new = _facts(now)
    return [
        {"what": what, "before": old.get(what), "now": new.get(what)}
        for what in {**old, **new}
        if old.get(what) != new.get(what)
    ]


def _facts(lock: RunLock) -> dict[str, str | None]:
    """What results may depend on."""
    config = "the last one"
    if lock["changed_at"]:
        steps = ", ".join(map(str, lock["changed_at"]))
        config = f"changed by a resume at step {steps}"
    return {
        "data": lock["data"],
        "tokenizer": lock["tokenizer"],
        **{f"teacher {name}": digest for name, digest in lock["teachers"].items()},
        **{f"initial weights {name}": digest for name, digest in lock["initial_weights"].items()},
        "config": config,
        "commit": lock["code"]["commit"],
        "uncommitted changes": lock["code"]["digest"],
        **lock["versions"],
        **lock["machine"],
    }


def describe(comparison: Comparison) -> str:
    """The result in words, one line, and a line for each difference."""
    largest = "infinite" if comparison["largest"] is None else f"{comparison['largest']:.2g}"
    match comparison["result"]:
        case "bit-exact":
            end = "the runs did not end after the same step"
            if comparison["complete"]:
                end = "and the final weights and optimizer state"
            losses = f"{comparison['steps']} losses up to step {comparison['last_step']}"
            line = f"bit-exact: {losses}, {end}"
        case "within tolerance":
            limit = f"{comparison['tolerance']:g}"
            line = f"within tolerance: relative difference at most {largest} of {limit}"
        case _:
            reason = "but all else in run.lock is equal"
            if comparison["differences"]:
                reason = "because these differ:"
            step = comparison["diverged_at"]
            line = f"diverged at step {step} (relative difference up to {largest}), {reason}"
    texts = [
        f"  {each['what']}: {_short(each['before'])} -> {_short(each['now'])}"
        for each in comparison["differences"]
    ]
    return "\n".join([line, *texts])


def _short(value: str | None) -> str:
    """A digest by its first digits."""
    if value is None:
        return "unknown"
    if len(value) >= 32 and not value.strip("0123456789abcdef"):
        return value[:12]
    return one_line(value, 120) or "none"
