"""Past runs by what a user calls them: those of a store, and those that only their folder knows."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from mlxlab.errors import ServiceUnavailableError
from mlxlab.experiment.past_run.earlier_run import earlier_folder
from mlxlab.experiment.past_run.lookup import as_run_folder, find_run, open_reader
from mlxlab.tracking.runs.objectives import load_best
from mlxlab.tracking.runs.reader import MetricRange, RunReader, RunRow


class PastRuns:
    """The runs of a store, which is opened when it is needed, and run folders.

    Args:
        uri: of the store; None takes that of the environment or of the project.
    """

    def __init__(self, uri: str | None) -> None:
        self._uri = uri
        self._reader: RunReader | None = None

    @property
    def reader(self) -> RunReader:
        if self._reader is None:
            self._reader = open_reader(self._uri)
        return self._reader

    def find(self, name: str) -> RunRow:
        """The run of an id, a name or a folder: as the store has it, or else as its folder describes it.

        Raises:
            ConfigError, ServiceUnavailableError: as `find_run`.
            InputNotFoundError: a path that is neither in the store nor a run folder.
            DataError, NotAllowedError: as `read_run_folder`.
        """
        if "/" not in name and not os.path.isdir(os.path.expanduser(name)):
            return self._find_stored(name)
        path = os.path.expanduser(name)
        with suppress(ServiceUnavailableError):
            if self.reader.find_runs(path):
                return self._find_stored(path)
        folder = as_run_folder(name)
        assert folder is not None, "a path"
        return folder_run().read_run_folder(folder)

    def _find_stored(self, name: str) -> RunRow:
        run = find_run(self.reader, name)
        if run.folder and (moved := earlier_folder(Path(run.folder), run.short_id)):
            run.folder = str(moved)
        load_best(self.reader, [run])
        return run

    def find_all(self, names: Iterable[str]) -> list[RunRow]:
        return [self.find(name) for name in names]

    def ranges(self, run: RunRow) -> dict[str, MetricRange]:
        folder = _only_folder(run)
        return folder_run().folder_ranges(folder) if folder else self.reader.metric_ranges(run)

    def datasets(self, run: RunRow) -> dict[str, str]:
        folder = _only_folder(run)
        return folder_run().folder_datasets(folder) if folder else self.reader.datasets(run)


def folder_run() -> ModuleType:
    """Reading a config takes imports that a store does not need."""
    from mlxlab.experiment.past_run import folder_run

    return folder_run


def _only_folder(run: RunRow) -> Path | None:
    """The folder of a run that was read from it; None of one in a store."""
    return None if run.is_stored or run.folder is None else Path(run.folder)
