"""The report of a run: its record, its pages, and the lines with which it ends."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab import terminal
from mlxlab.errors import RunInterrupted, UserError
from mlxlab.schema.constraints import Count
from mlxlab.terminal.program import display_path
from mlxlab.tracking.tracker import Status, Tracker
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

if TYPE_CHECKING:
    from mlxlab.run.context import RunContext

logger = logging.getLogger(__name__)


class RunReport(Callback):
    """Writes `report.html` when the run has ended, however it did; without this callback there is none.

    Args:
        samples: texts that a language model generates at the end, 0 for none; they take half a second at most.
        sample_tokens: max tokens of each.
    """

    def __init__(self, samples: Count, sample_tokens: Count) -> None:
        self.samples = samples
        self.sample_tokens = sample_tokens

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        """Imports the views after the first step, as the source may change before the end."""
        from mlxlab.views import pages  # noqa: F401


def find_report(callbacks: Iterable[Callback]) -> RunReport | None:
    """The first of these callbacks."""
    return next((each for each in callbacks if isinstance(each, RunReport)), None)


@contextmanager
def tracked_until_end(
    tracker: Tracker, context: "RunContext", report: RunReport | None
) -> Iterator[None]:
    """Ends a run in the tracker with its status; writes its record and its pages first, however it ended."""
    status: Status = "FAILED"
    failure: BaseException | None = None
    try:
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, RunInterrupted) as error:
        status = "KILLED"
        failure = error
        raise
    except BaseException as error:
        failure = error
        raise
    finally:
        if context.group.rank == 0:
            try:
                _end(tracker, context, failure, has_page=report is not None)
            except UserError as error:
                if str(error) != str(failure):
                    logger.warning(str(error))
        tracker.end(status)


def _end(
    tracker: Tracker, context: "RunContext", failure: BaseException | None, *, has_page: bool
) -> None:
    """Writes `run.json`, `summary.md` and the page, and prints how a finished run ended."""
    from mlxlab.past_runs.collect_record import complete
    from mlxlab.record.run_file import FILE
    from mlxlab.views.pages import (
        REPORT,
        SUMMARY,
        closing_lines,
        run_page,
        summary,
        write_page,
    )
    from mlxlab.views.run_view import RunView

    folder = context.run_dir
    record = context.writer.end(failure)
    complete(record, folder)
    context.writer.write()
    tracker.log_artifact(folder / FILE)
    view = RunView(record, folder.absolute())
    if record.is_evaluated:
        tracker.log_artifact(write_page(folder / SUMMARY, summary(view)))
    if failure is None:
        lines = closing_lines(RunView(record, Path(display_path(folder))))
        terminal.show(lines.strip())
    if has_page:
        path = write_page(folder / REPORT, run_page(view))
        print(f"report: {display_path(path)}", flush=True)
        tracker.log_artifact(path)
