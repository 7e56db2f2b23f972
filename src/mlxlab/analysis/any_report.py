"""The report of whatever a folder holds: a run, a sweep, a comparison, a cross-validation or a trial."""

from pathlib import Path

from mlxlab.analysis.comparison_report import read_comparison_page
from mlxlab.analysis.sweeps.read_sweep import read_sweep
from mlxlab.analysis.sweeps.sweep_report import write_sweep_report
from mlxlab.analysis.trial.record import FILE as TRIAL
from mlxlab.analysis.trial.record import read_record
from mlxlab.analysis.trial.view import trial_page
from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.experiment.collect_record import write_run_report
from mlxlab.files.untrusted import refuse_links
from mlxlab.record.run_file import FILE
from mlxlab.views.pages import REPORT, write_page

COMPARISONS = ("table", "comparison")  # names of their files: a cross-validation, and methods


def write_any_report(folder: Path, out: Path | None = None) -> list[Path]:
    """Writes the reports of a folder, `out` if there is one; returns their paths.

    Raises:
        InputNotFoundError: the folder holds nothing to report.
        DataError: what it holds is damaged.
        NotAllowedError: there are links in it.
        ConfigError: there are several reports, or files next to it, and so `out` cannot be.
        WriteError: a report cannot be written.
    """
    refuse_links(folder)
    if (folder / FILE).exists():
        return [write_run_report(folder, out=out)]
    if (folder / TRIAL).exists():
        return [write_page(out or folder / REPORT, trial_page(read_record(folder), folder))]
    if names := [name for name in COMPARISONS if (folder / f"{name}.json").exists()]:
        if out is not None and len(names) > 1:
            raise ConfigError(f"out={out}: the folder has {len(names)} comparisons; leave it out")
        pages = {
            out or folder / f"{name}.html": read_comparison_page(folder, name) for name in names
        }
        return [write_page(path, page) for path, page in pages.items()]
    if out is not None and out.name != REPORT:
        raise ConfigError(
            f"out={out}: expected {REPORT} in a folder, which gets the tables of the sweep too"
        )
    if not folder.is_dir():
        raise InputNotFoundError(
            f"{folder}: not found; expected the folder of a run, sweep, comparison or trial"
        )
    return [write_sweep_report(read_sweep(folder), out.parent if out else folder).page]
