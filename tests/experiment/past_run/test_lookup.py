"""A run is found by its folder, and by its id or name in a store."""

import pytest

from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.experiment.past_run.lookup import find_run, find_run_folder
from support.tracking import finished_run, project_fixture, query_store, wait_until  # noqa: F401


def test_a_run_is_found_by_folder_id_and_name(project, monkeypatch):
    folder, uri = finished_run(project), f"sqlite:///{project}/mlruns/mlflow.db"
    monkeypatch.chdir(project)
    wait_until(lambda: query_store(project, "select 1 from runs where status = 'FINISHED'"))
    [(run_id,)] = query_store(project, "select run_uuid from runs")
    with pytest.raises(InputNotFoundError, match=r"the run folder .* was not found"):
        find_run_folder(run_id, uri)
    (folder / "manifest.json").touch()
    assert {find_run_folder(name, uri) for name in (run_id, run_id[:8], "a", str(folder), "outputs/a")} == {folder}
    [(uid,)] = query_store(project, "select value from tags where key = 'mlxlab.uid'")
    earlier = folder / f"earlier-{uid[:8]}"
    earlier.mkdir()
    (earlier / "manifest.json").touch()  # another run began in the folder
    assert find_run_folder(uid[:8], uri) == earlier
    assert find_run_folder("outputs/a", uri) == folder
    with pytest.raises(ConfigError, match=r"other: no such run; .*runs list shows those that are tracked"):
        find_run_folder("other", uri)


def test_at_most_three_names_are_suggested_and_no_ids():
    names = [f"titanic-{number}" for number in range(50)] + ["0" * 32]
    with pytest.raises(ConfigError) as error:
        find_run(Names(names), "titanic")
    assert str(error.value).count("titanic-") == 3
    with pytest.raises(ConfigError, match="runs list"):
        find_run(Names(names), "0" * 31 + "1")


class Names:
    """A reader that finds nothing."""

    def __init__(self, names):
        self._names = names

    def find_runs(self, query):
        return []

    def names(self, kind):
        return self._names
