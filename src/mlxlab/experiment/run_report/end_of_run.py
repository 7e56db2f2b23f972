"""Ends a run: its report, and its entry in the tracker."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlxlab.errors import RunInterrupted, UserError
from mlxlab.experiment.run_report.callback import RunReport
from mlxlab.program import display_path
from mlxlab.tracking.tracker import Status, Tracker

if TYPE_CHECKING:
    from mlxlab.experiment.run import RunContext

logger = logging.getLogger(__name__)


@contextmanager
def tracked_until_end(
    tracker: Tracker, context: "RunContext", report: RunReport | None
) -> Iterator[None]:
    """Closes a run in the tracker with the status that it ended with; writes its report first, however it ended."""
    status: Status = "FAILED"
    failure: BaseException | None = None
    try:
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, RunInterrupted) as error:
        status, failure = "KILLED", error
        raise
    except BaseException as error:
        failure = error
        raise
    finally:
        if report is not None and context.group.rank == 0:
            _report(tracker, context, failure)
        tracker.end(status)


def _report(tracker: Tracker, context: "RunContext", failure: BaseException | None) -> None:
    """Without it a run is what it is all the same."""
    from mlxlab.experiment.run_report.write import write_run_report

    try:
        path = write_run_report(context.run_dir, context.manifest.end(failure))
    except UserError as error:
        logger.warning(str(error))
    else:
        logger.info(f"report: {display_path(path)}")
        tracker.log_artifact(path)
