"""The views of a run: `report.html`, `summary.md`, and lines for a terminal."""

from pathlib import Path

import yaml

from mlxlab.errors import WriteError
from mlxlab.files.atomic import write_atomic
from mlxlab.record.run_record import RunRecord
from mlxlab.views.checks import Check, check
from mlxlab.views.render import render
from mlxlab.views.run_tables import Slices
from mlxlab.views.run_view import RunView
from mlxlab.views.tables import Table

REPORT = "report.html"
SUMMARY = "summary.md"
STATES = ("bad", "warning", "unknown", "good")
ANSWERS = {"bad": "No", "warning": "With care", "unknown": "Not fully checked", "good": "Yes"}
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Trust:
    """The checks of a run by state, and the answer that follows from them."""

    def __init__(self, checks: list[Check]) -> None:
        self.checks = checks
        found = {each.state for each in checks}
        self.state = next((state for state in STATES if state in found), "good")
        self.answer = ANSWERS[self.state]

    def of(self, *states: str) -> list[Check]:
        """The checks in these states, in the order of the states."""
        found = [each for each in self.checks if each.state in states]
        return sorted(found, key=lambda each: states.index(each.state))


def run_page(view: RunView) -> str:
    text = yaml.dump(view.record.config, Dumper=_DUMPER, sort_keys=False)
    return render("run.html", run=view, trust=Trust(check(view)), config_text=text)


def summary(view: RunView) -> str:
    return render("summary.md", run=view, trust=Trust(check(view)))


def evaluation_lines(record: RunRecord, slices: Slices | None = None) -> str:
    """The tables of an evaluation of its own; the record has its results alone, and the name of the data."""
    view = RunView(record, Path())
    return render("evaluation.txt", run=view, slices=slices).strip()


def closing_lines(view: RunView) -> str:
    """What a run prints at its end: at most ten lines."""
    return render("closing.txt", run=view, trust=Trust(check(view)))


def info_lines(view: RunView, frozen_bytes: int, checkpoints: Table) -> str:
    """What `info run=` prints."""
    return render(
        "info.txt",
        run=view,
        trust=Trust(check(view)),
        checkpoints=checkpoints,
        frozen_bytes=frozen_bytes,
    ).strip()


def write_page(path: Path, text: str) -> Path:
    """Writes a view; raises WriteError."""
    try:
        write_atomic(path, text)
    except OSError as error:
        raise WriteError(f"{path}: not written: {error.strerror or error}") from None
    return path
