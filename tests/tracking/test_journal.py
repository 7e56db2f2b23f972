"""The journal: what is logged stays logged, costs next to nothing, and needs no tracker library."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from mlxlab.errors import CannotCreateError, ConfigError
from mlxlab.tracking.journal import Journal
from mlxlab.tracking.mlflow import address, names
from mlxlab.tracking.mlflow.destination import MlflowDestination
from mlxlab.tracking.queue import Queue, dump, load
from mlxlab.tracking.records import has_writer, read_records
from support.tracking import make_journal

pytestmark = pytest.mark.usefixtures("no_syncer")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ARTIFACT_ROOT", "MLXLAB_PARENT_RUN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = make_journal(tmp_path, wait=0.0)
    journal.start({}, {})
    return journal


def records(journal: Journal) -> list[dict]:
    return [
        json.loads(line) for line in (journal.folder / "journal.jsonl").read_text().splitlines()
    ]


def test_a_training_process_imports_no_tracker_library(tmp_path):
    program = (
        "import sys; from pathlib import Path; from mlxlab.tracking.journal import Journal\n"
        "from mlxlab.tracking import queue; queue.start_uploading = lambda queue: False\n"
        f"here = Path({str(tmp_path)!r})\n"
        "j = Journal(None, None, 'e', True, 0.0, folder=here / 'a', project=here)\n"
        "j.start({}, {}); j.log_metrics(1, {'a': 1.0}); j.end('FINISHED')\n"
        "heavy = {'mlflow', 'sqlalchemy', 'alembic', 'pandas', 'numpy', 'mlx', 'sqlite3'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.check_output(command, text=True).strip() == "[]"


@pytest.mark.parametrize("torn", [b"", b'{"t":1,"start":{"uid"'])
def test_a_run_killed_before_its_first_record_begins_its_journal_again(tmp_path, torn):
    journal = make_journal(tmp_path)
    journal.folder.mkdir(parents=True)
    (journal.folder / "journal.jsonl").write_bytes(torn)
    journal.start({}, {}, resumed=True)
    assert records(journal)[0]["start"]["uid"] == journal.uid


def test_a_torn_last_line_is_removed_before_the_next_is_appended(journal, tmp_path):
    journal.log_metrics(1, {"a": 1.0})
    journal._writer.close()
    with (journal.folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"t":1,"s":2,"m":{"a"')
    again = make_journal(tmp_path)
    again.start({}, {}, resumed=True)
    again.log_metrics(3, {"a": 1.0})
    assert [record.get("s") for record in records(again)] == [None, 1, None, 3]


def test_lines_that_the_disk_refuses_are_written_later_whole_and_in_order(journal, capsys):
    journal.log_metrics(1, {"a": 1.0})
    size = (journal.folder / "journal.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # half a line fits
        for step in (2, 3, 4):
            journal.log_metrics(step, {"a": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.log_metrics(5, {"a": 1.0})
    assert [record["s"] for record in records(journal)[1:]] == [1, 2, 3, 4, 5]
    assert capsys.readouterr().err.count("wait in memory") == 1


def test_a_second_writer_is_refused_until_the_end(journal, tmp_path):
    second = make_journal(tmp_path)
    for resumed in (True, False):
        with pytest.raises(CannotCreateError, match="another process"):
            second.start({}, {}, resumed=resumed)
    assert records(journal)[0]["start"]["uid"] == journal.uid
    journal.end("FINISHED")
    assert not has_writer(journal.folder / "journal.jsonl")


def test_a_resumed_run_keeps_its_uid_and_a_new_run_sets_the_old_journal_aside(journal, tmp_path):
    journal._writer.close()
    resumed = make_journal(tmp_path)
    resumed.start({}, {}, resumed=True)
    resumed._writer.close()
    fresh = make_journal(tmp_path)
    fresh.start({}, {})
    assert resumed.uid == journal.uid != fresh.uid
    assert len(records(fresh)) == 1
    assert (fresh.folder / f"journal-{journal.uid}.jsonl").read_text().count('"start"') == 2


def test_a_journal_is_only_appended_to(journal):
    for step in range(1, 11):
        journal.log_metrics(step, {"a": float(step)})
    path = journal.folder / "journal.jsonl"
    before = path.read_bytes()
    journal.truncate_after(6)
    journal.log_metrics(5, {"a": 5.5})
    assert path.read_bytes().startswith(before)
    assert records(journal)[-2]["truncate_after"] == 6
    assert [end for _, end in read_records(path)][-1] == path.stat().st_size


def test_cleaned_keys_are_accepted_by_mlflow():
    assert names.clean("a[0].b") == "a.0.b"
    assert names.clean("f1@5=x#+") == "f1_5_x__"
    assert names.clean("../../etc//passwd/") == "_/_/etc/passwd"
    assert len(names.clean("x" * 1000)) == 250
    assert names.clean("x" * 1000) != names.clean("x" * 999)
    assert len(names.clean_values({"e": "x" * 9000}, names.MAX_PARAM)["e"]) == 6000


def test_addresses_are_absolute_and_printed_without_a_password(tmp_path, monkeypatch):
    default = address.resolve(None, None, tmp_path)
    assert default.database == tmp_path / "mlruns" / "mlflow.db"
    assert default.artifacts == str(tmp_path / "mlruns" / "artifacts")
    assert address.resolve("sqlite:///x/y.db", None, tmp_path).database == tmp_path / "x" / "y.db"
    assert address.resolve("sqlite:////x/y.db", None, tmp_path).database == Path("/x/y.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host/mlflow")
    server = address.resolve(None, None, tmp_path)
    assert server.uri == "https://me:secret@host/mlflow"
    assert server.shown == "https://***@host/mlflow"
    waiting = Queue(MlflowDestination(server.uri, server.artifacts), tmp_path)
    assert waiting.folder.parent == tmp_path / "mlruns"
    assert load(dump(waiting)).destination == waiting.destination


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:hunt/er2@host/mlflow",
        "https://host/mlflow?token=hunter2",
        "postgresql://me:hunter2@host/db?sslpassword=hunter2",
    ],
)
def test_no_secret_of_an_address_reaches_the_journal_or_the_terminal(
    tmp_path, monkeypatch, capsys, uri
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ARTIFACT_ROOT", "s3://key:hunter2@bucket/x?token=hunter2")
    journal = make_journal(tmp_path, wait=0.0)
    journal.start({}, {})
    journal.end("FINISHED")
    written = (journal.folder / "journal.jsonl").read_text()
    assert "host" in records(journal)[0]["start"]["store"]
    for text in (*capsys.readouterr(), *journal.describe(), written):
        assert not [secret for secret in ("hunt/er2", "hunter2", "er2@") if secret in text]


@pytest.mark.parametrize("name", ["a?b", "per%20cent", "a#b", "a b"])
def test_a_project_folder_may_have_any_name(tmp_path, name):
    default = address.resolve(None, None, tmp_path / name)
    assert default.database == tmp_path / name / "mlruns" / "mlflow.db"
    assert make_url(default.uri).database == str(default.database)
    assert address.resolve(default.shown, None, tmp_path).database == default.database


@pytest.mark.parametrize(
    "uri",
    ["./mlruns", "file:///x", "sqlite://", "sqlite:///:memory:", "gopher://x", "uc:x", "", "x"],
)
def test_an_address_that_mlflow_has_no_store_for_is_a_config_error(tmp_path, uri):
    with pytest.raises(ConfigError, match=f"tracking.uri={uri}: expected sqlite:///") as fault:
        make_journal(tmp_path, uri=uri)
    assert "\n" not in str(fault.value)
