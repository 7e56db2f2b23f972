"""A run is found by its folder, and by its id or name in a store."""

import pytest

from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.past_runs.lookup import find_row, find_run_folder
from mlxlab.record.run_file import write_run
from support.run_records import attempt_of, blank_record
from support.tracking import finished_run, project_fixture, query_store, wait_until  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_a_run_is_found_by_folder_id_and_name(project, monkeypatch):
    folder, uri = finished_run(project), f"sqlite:///{project}/mlruns/mlflow.db"
    monkeypatch.chdir(project)
    wait_until(lambda: query_store(project, "select 1 from runs where status = 'FINISHED'"))
    [(run_id,)] = query_store(project, "select run_uuid from runs")
    with pytest.raises(InputNotFoundError, match=r"the run folder .* was not found"):
        find_run_folder(run_id, uri)
    (folder / "run.json").touch()
    assert {
        find_run_folder(name, uri) for name in (run_id, run_id[:8], "a", str(folder), "outputs/a")
    } == {folder}
    [(uid,)] = query_store(project, "select value from tags where key = 'mlxlab.uid'")
    earlier = folder / f"earlier-{uid[:8]}"
    earlier.mkdir()
    (earlier / "run.json").touch()  # another run began in the folder
    assert find_run_folder(uid[:8], uri) == earlier
    assert find_run_folder("outputs/a", uri) == folder
    with pytest.raises(ConfigError, match=r"other: no such run"):
        find_run_folder("other", uri)

    for path in folder.glob("journal.*"):
        path.unlink()
    finished_run(project)  # that other run, in the same folder
    uids = "select value from tags where key = 'mlxlab.uid'"
    wait_until(lambda: len(query_store(project, uids)) == 2)
    with pytest.raises(ConfigError, match=r"a: matches 2 runs, expected the id of one: .* \(a 20"):
        find_row("a", uri)
    holders = [holder for (holder,) in query_store(project, uids)]
    for holder in sorted(holders, key=lambda each: each != uid):  # The folder holds the other run.
        write_run(folder, blank_record(id=holder, attempts=[attempt_of()]))
        assert find_row("outputs/a", uri).run_id == holder
    assert find_row(uid[:8], uri).folder == str(earlier)
    beginning = run_id[:2]  # not one letter: the runs above are named "a"
    named = finished_run(project, beginning)
    wait_until(lambda: query_store(project, f"select 1 from runs where name = '{beginning}'"))
    (named / "run.json").touch()
    assert find_run_folder(beginning, uri) == named  # and not the run whose id begins so
