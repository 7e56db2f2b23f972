"""Alternating trials. Machines are noisy: only medians of variants that alternate in one process are compared."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlxlab.terminal.tables import markdown_table


@dataclass(frozen=True)
class Trial:
    """Seconds of each round of one variant: elapsed, and of all threads of the process together."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)

    def run(self, function: Callable[[], object]) -> None:
        """Measures one round."""
        start, used = time.perf_counter(), time.process_time()
        function()
        self.seconds.append(time.perf_counter() - start)
        self.cpu.append(time.process_time() - used)


def alternate(variants: Mapping[str, Callable[[], object]], rounds: int) -> list[Trial]:
    """Runs every variant once as a warm-up, then all in turn, `rounds` times each."""
    for function in variants.values():
        function()
    trials = {name: Trial(name) for name in variants}
    for _ in range(rounds):
        for name, function in variants.items():
            trials[name].run(function)
    return list(trials.values())


def figures(text: str) -> list[dict[str, Any]]:
    """Parses the tables of `table`: title, columns, rows."""
    tables: list[dict[str, Any]] = []
    for line in text.splitlines():
        if line.startswith("**"):
            tables.append({"title": line.strip("*"), "columns": [], "rows": []})
        elif line.startswith("|") and not set(line) <= set("|-:"):
            cells = [cell.strip() for cell in line[1:-1].split("|")]
            if not tables[-1]["columns"]:
                tables[-1]["columns"] = cells
            else:
                tables[-1]["rows"].append(cells)
    return tables


def table(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    """Markdown; the first row is the head."""
    head, *body = rows
    return f"**{title}**\n\n{markdown_table(head, body)}"
