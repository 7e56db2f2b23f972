"""What became of every array when weights were carried from one model to another."""

from dataclasses import dataclass, field
from typing import Literal, TypedDict

from mlxlab.errors import DataError, NotAllowedError
from mlxlab.schema.constraints import Count
from mlxlab.terminal.wording import percent, some

Outcome = Literal[
    "matched",  # same path, same numbers
    "renamed",  # same numbers under another path
    "merged",  # an adapter was folded in
    "converted",  # quantised, dequantised
    "grown",  # made by an operation of growth
    "new",  # has to be new: of an adapter, of a head for another task
    "dropped",  # has no place any more: of a head for another task
    "missing",  # the checkpoint lacks it
    "unexpected",  # the model has no place for it
    "wrong shape",
]
CARRIED: tuple[Outcome, ...] = ("matched", "renamed", "merged", "converted", "grown")
EXPLAINED: tuple[Outcome, ...] = ("new", "dropped")
FAULTS: tuple[Outcome, ...] = ("missing", "unexpected", "wrong shape")


class TransferRecord(TypedDict):
    """One entry of `transfer.json`."""

    source: str
    digest: str
    step: Count  # the first with these weights
    weights: dict[str, list[str]]
    optimizer: dict[str, list[str]]


@dataclass
class TransferReport:
    """The names of arrays by outcome; wrong shapes with both shapes."""

    names: dict[Outcome, list[str]] = field(default_factory=dict)

    def add(self, outcome: Outcome, name: str) -> None:
        self.names.setdefault(outcome, []).append(name)

    def count(self, *outcomes: Outcome) -> int:
        return sum(len(self.names.get(outcome, ())) for outcome in outcomes)

    @property
    def match(self) -> float:
        """Share of the arrays that were carried over, among all but those with a reason not to be."""
        carried = self.count(*CARRIED)
        faults = self.count(*FAULTS)
        return carried / (carried + faults) if carried else 0.0

    def lines(self, source: str) -> list[str]:
        """Lists the counts, then a line with the first names of what was not carried over."""
        counts = ", ".join(f"{len(names)} {outcome}" for outcome, names in self._ordered())
        details = [
            f"  {outcome}: {some(names)}"
            for outcome, names in self._ordered()
            if outcome in (*EXPLAINED, *FAULTS)
        ]
        return [f"weights of {source}: {counts}", *details]

    def require(self, min_match: float, source: str, advice: str = "") -> None:
        """Raises DataError if nothing was carried over, NotAllowedError if less than `min_match`.

        Args:
            advice: how the rest would fit; "" names the setting that accepts less.
        """
        faults = "; ".join(
            f"{len(names)} {kind} ({some(names)})"
            for kind, names in self._ordered()
            if kind in FAULTS
        )
        if not self.count(*CARRIED):
            raise DataError(
                f"{source}: no array fits the model: {faults or 'it holds none'}{advice and f'; {advice}'}"
            )
        if self.match < min_match:
            rounded_down = int(self.match * 1000) / 1000
            hint = advice or f"resume_policy.min_match={int(self.match * 100) / 100} accepts it"
            raise NotAllowedError(
                f"{source}: {percent(rounded_down)} of the arrays fit the model: {faults}; {hint}"
            )

    def as_json(self) -> dict[str, list[str]]:
        return {str(outcome): names for outcome, names in self._ordered()}

    def _ordered(self) -> list[tuple[Outcome, list[str]]]:
        return [
            (outcome, self.names[outcome])
            for outcome in (*CARRIED, *EXPLAINED, *FAULTS)
            if outcome in self.names
        ]
