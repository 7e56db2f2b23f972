"""The report of a run: `report.html` of its folder, made of the files there and of nothing else."""

from collections.abc import Sequence
from pathlib import Path

from mlxlab.config.issues import one_line
from mlxlab.experiment.manifest import Manifest
from mlxlab.experiment.run_report.cards import all_cards
from mlxlab.experiment.run_report.checks import all_checks
from mlxlab.experiment.run_report.details import detail_sections, moment
from mlxlab.experiment.run_report.results import results_of
from mlxlab.experiment.run_report.run_files import RunFiles, read_run_files
from mlxlab.experiment.run_report.sections import result_sections
from mlxlab.html.blocks import Check, Page, Tone
from mlxlab.html.page import write_page

FILE = "report.html"
_STATUS = {
    "RUNNING": "running",
    "DONE": "finished",
    "FAILED": "failed",
    "PREEMPTED": "interrupted",
    "DEAD": "killed",
}


def write_run_report(
    folder: Path, manifest: Manifest | None = None, out: Path | None = None
) -> Path:
    """Writes the report of the run in a folder; returns its path.

    Args:
        manifest: that of a run that is about to end; None reads it.
        out: the file; None is `report.html` of the run folder.

    Raises:
        InputNotFoundError, DataError: there is no run, or its manifest is damaged.
        WriteError: the report cannot be written.
    """
    return write_page(run_page(read_run_files(folder.absolute(), manifest)), out or folder / FILE)


def _tone(is_well: bool, checks: Sequence[Check]) -> Tone:
    """Of the status: green is for runs that ended well and learned something."""
    return "bad" if not is_well else "" if any(check.is_serious for check in checks) else "good"


def _title(files: RunFiles) -> str:
    """The name of the run, and of its folder, which tells it from others of that name."""
    name, folder = files.manifest["name"], files.folder.name
    return one_line(name if folder == name else f"{name}: {folder}", 120)


def run_page(files: RunFiles) -> Page:
    """The report of a run as a page."""
    results = results_of(files)
    checks = all_checks(files, results)
    pruned = files.metrics.get("state", "finished") if files.metrics else "finished"
    status = pruned if pruned != "finished" else _STATUS[files.status]
    return Page(
        title=_title(files),
        subtitle=f"Run of {moment(files.manifest['attempts'][0]['start'])} in {files.folder}",
        status=status,
        tone=_tone(files.status in ("DONE", "RUNNING") and pruned == "finished", checks),
        cards=all_cards(files, results, checks),
        checks=checks,
        sections=[*result_sections(files, results), *detail_sections(files)],
    )
