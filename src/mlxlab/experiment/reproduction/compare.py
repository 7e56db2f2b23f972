"""Compares two `run.lock`: are the runs equal, and if not, since which step and what else differs."""

from typing import Literal, NamedTuple, TypedDict

from mlxlab.errors import DataError
from mlxlab.experiment.reproduction.run_lock import RunLock
from mlxlab.wording import one_line

Result = Literal["bit-exact", "within tolerance", "diverged"]


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
        first_step: the first step with another loss; None if all are equal.
        diverged_at: the first step whose loss differs by more than the tolerance.
        largest: of the relative differences of the losses and the best value of the objective; None: infinite.
    """

    result: Result
    steps: int
    last_step: int
    complete: bool
    first_step: int | None
    diverged_at: int | None
    largest: float | None
    tolerance: float
    differences: list[Difference]


class _Losses(NamedTuple):
    before: float | None
    now: float | None

    @property
    def relative(self) -> float:
        """Of the earlier loss; infinite where only one of them is finite."""
        if self.before == self.now:
            return 0.0
        if self.before is None or self.now is None:
            return float("inf")
        return abs(self.now - self.before) / max(abs(self.before), 1e-12)


def compare(before: RunLock, now: RunLock, tolerance: float) -> Comparison:
    """Compares a run with the one that it reproduces.

    Args:
        tolerance: of the relative difference of a loss, and of the best value of the objective.

    Raises:
        DataError: there is no step whose loss both have.
    """
    steps = sorted(int(step) for step in before["losses"].keys() & now["losses"].keys())
    if not steps:
        raise DataError("run.lock: no losses to compare; the run ended before its first step")
    relative = {
        step: _Losses(before["losses"][str(step)], now["losses"][str(step)]).relative
        for step in steps
    }
    first_step = next((step for step in steps if relative[step] > 0), None)
    diverged_at = next((step for step in steps if relative[step] > tolerance), None)
    largest = max(relative.values())
    ends = before.get("outcome"), now.get("outcome")
    complete, same_state = False, True
    if ends[0] is not None and ends[1] is not None and ends[0]["steps"] == ends[1]["steps"]:
        complete, same_state = True, ends[0]["state"] == ends[1]["state"]
        end = _Losses(ends[0]["best"], ends[1]["best"]).relative
        largest = max(largest, end)
        if diverged_at is None and end > tolerance:
            diverged_at = ends[0]["steps"]
    exact = first_step is None and same_state
    if exact:
        result: Result = "bit-exact"
    elif diverged_at is None and tolerance > 0:
        result = "within tolerance"
    else:
        result, diverged_at = "diverged", diverged_at or steps[-1]
    return {
        "result": result,
        "steps": len(steps),
        "last_step": steps[-1],
        "complete": complete,
        "first_step": first_step,
        "diverged_at": diverged_at,
        "largest": largest if largest < float("inf") else None,
        "tolerance": tolerance,
        "differences": differences(before, now),
    }


def differences(before: RunLock, now: RunLock) -> list[Difference]:
    """What differs between two runs other than their results, the likeliest reason first."""
    pairs: list[tuple[str, str | None, str | None]] = [("data", before["data"], now["data"])]
    pairs.append(("tokenizer", before["tokenizer"], now["tokenizer"]))
    pairs += _by_name("teacher ", before["teachers"], now["teachers"])
    pairs += _by_name("initial weights ", before["initial_weights"], now["initial_weights"])
    for step in before["changed_at"]:
        pairs.append(
            ("config", f"changed by a resume at step {step}", "the last one from the start")
        )
    pairs.append(("commit", before["code"]["commit"], now["code"]["commit"]))
    pairs.append(("uncommitted changes", before["code"]["digest"], now["code"]["digest"]))
    pairs += _by_name("", before["versions"], now["versions"])
    pairs += _by_name("", before["machine"], now["machine"])
    return [{"what": what, "before": old, "now": new} for what, old, new in pairs if old != new]


def _by_name(
    prefix: str, before: dict[str, str], now: dict[str, str]
) -> list[tuple[str, str | None, str | None]]:
    return [
        (f"{prefix}{name}", before.get(name), now.get(name)) for name in sorted({*before, *now})
    ]


def describe(comparison: Comparison) -> str:
    """The result in words, one line, and a line for each difference."""
    first, steps, last = comparison["first_step"], comparison["steps"], comparison["last_step"]
    largest = "infinite" if comparison["largest"] is None else f"{comparison['largest']:.2g}"
    match comparison["result"]:
        case "bit-exact" if comparison["complete"]:
            line = f"bit-exact: {steps} losses up to step {last}, and the final weights and optimizer state"
        case "bit-exact":
            line = f"bit-exact up to step {last}: {steps} losses; the runs did not end after the same step"
        case "within tolerance":
            since = f"first at step {first}" if first else "only at the end"
            line = f"within tolerance: relative difference at most {largest} of {comparison['tolerance']:g}, {since}"
        case _:
            reason = (
                "because these differ:"
                if comparison["differences"]
                else "but all else in run.lock is equal"
            )
            line = f"diverged at step {comparison['diverged_at']} (relative difference up to {largest}), {reason}"
    return "\n".join([line, *(_difference_line(each) for each in comparison["differences"])])


def _difference_line(difference: Difference) -> str:
    before, now = (_short(difference[side]) for side in ("before", "now"))
    return f"  {difference['what']}: {before} -> {now}"


def _short(value: str | None) -> str:
    """A digest by its first digits."""
    if value is None:
        return "unknown"
    is_digest = len(value) >= 32 and not value.strip("0123456789abcdef")
    return value[:12] if is_digest else one_line(value, 120) or "none"
