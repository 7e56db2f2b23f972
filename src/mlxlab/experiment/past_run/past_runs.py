"""Past runs by what a user calls them: those of a store, and those that only their folder knows."""

import os
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from mlxlab.errors import InputNotFoundError, ServiceUnavailableError
from mlxlab.experiment.past_run.earlier_run import earlier_folder
from mlxlab.experiment.past_run.lookup import as_run_folder, find_run, folders_of, open_reader
from mlxlab.tracking.mlflow.runs import RunReader, RunRow


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
        """The run of an id or a name as the store has it; that of a folder as this describes it, which is quicker.

        Raises:
            ConfigError, ServiceUnavailableError: as `find_run`.
            InputNotFoundError: a path that is neither in the store nor a run folder.
            DataError, NotAllowedError: as `read_run_folder`.
        """
        if "/" not in name and not os.path.isdir(os.path.expanduser(name)):
            for found in folders_of(name):
                return folder_run().read_run_folder(found)
            return self._find_stored(name)
        try:
            folder = as_run_folder(name)
        except InputNotFoundError:
            path = os.path.expanduser(name)
            with suppress(ServiceUnavailableError):
                if self.reader.find_runs(path):
                    return self._find_stored(path)
            raise
        assert folder is not None, "a path"
        return folder_run().read_run_folder(folder)

    def _find_stored(self, name: str) -> RunRow:
        run = find_run(self.reader, name)
        if run.folder and (moved := earlier_folder(Path(run.folder), run.short_id)):
            run.folder = str(moved)
        return run


def folder_run() -> ModuleType:
    """Reading a config takes imports that a store does not need."""
    from mlxlab.experiment.past_run import folder_run

    return folder_run
