"""Alternating trials. These machines are noisy: only what ran side by side in one process is compared, by medians."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """Seconds of each round of one variant."""

    name: str
    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def alternate(variants: Mapping[str, Callable[[], object]], rounds: int) -> list[Trial]:
    """Runs every variant once unmeasured, then in turn, `rounds` times each."""
    for work in variants.values():
        work()
    trials = {name: Trial(name, []) for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            start = time.perf_counter()
            work()
            trials[name].seconds.append(time.perf_counter() - start)
    return list(trials.values())


def table(title: str, rows: list[tuple[str, ...]]) -> str:
    """Markdown; the first row is the head."""
    head, *body = rows
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}", *(f"| {' | '.join(r)} |" for r in body)]
    return "\n".join([f"**{title}**", "", *lines])
