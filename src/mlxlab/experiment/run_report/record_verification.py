"""Records what a verification found, for the report of the run."""

import logging
from pathlib import Path

from mlxlab.errors import UserError
from mlxlab.experiment.run_report.result_files import VERIFICATION, Verification
from mlxlab.experiment.run_report.write import FILE as REPORT
from mlxlab.experiment.run_report.write import write_run_report
from mlxlab.files.atomic import write_json

logger = logging.getLogger(__name__)


def record_verification(folder: Path, steps: list[int], difference: str = "") -> None:
    """Writes `verify.json`, and the report again if there is one; a folder that cannot be written stays as it is."""
    try:
        write_json(folder / VERIFICATION, Verification(format=1, steps=steps, difference=difference[:2000]))
        if (folder / REPORT).is_file():
            write_run_report(folder)
    except OSError as error:
        logger.warning(f"{folder / VERIFICATION}: not written: {error.strerror or error}")
    except UserError as error:
        logger.warning(str(error))
