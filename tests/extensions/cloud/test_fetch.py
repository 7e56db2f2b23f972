"""A run that has nothing but its copies in an object store is resumed bitwise."""

import json
import shutil

import pytest

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.errors import (
    CannotCreateError,
    CheckpointUnavailableError,
    ConfigError,
    InputNotFoundError,
)
from mlxlab.record.run_file import read_run
from mlxlab.run.storage import open_address
from support.configs import line  # noqa: F401
from support.past_run import CHEAP
from support.processes import final_state, run_here, tiny_overrides


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(store, run folder, process) of a run of four steps."""
    folder = tmp_path_factory.mktemp("cloud")
    args = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2")
    args += [*CHEAP, f"hydra.run.dir={folder}/run", "cloud=directory", f"cloud.path={folder}/store"]
    done = run_here(*args)
    assert done.returncode == 0, done.stderr
    return folder / "store", folder / "run", done


@pytest.fixture
def store(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "store")


def fetch(address, folder):
    return open_address(address, {}).fetch(address, folder)


def address(store):
    return f"{store.as_uri()}/checkpoints"


def test_a_run_continues_from_its_copy_as_if_it_had_not_stopped(finished, store, tmp_path):
    (run,) = (store / "checkpoints").iterdir()
    copy = f"resume={address(store)}/{run.name}/step-00000002"
    resumed = run_here(copy, "cloud=none", f"hydra.run.dir={tmp_path}/new")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from step-00000002" in resumed.stderr
    assert final_state(resumed) == final_state(finished[2])
    assert {read_run(each).id for each in (finished[1], tmp_path / "new")} == {run.name}
    assert not list(tmp_path.glob(".*"))


def test_jobs_of_a_sweep_start_from_one_copy_as_runs_of_their_own(store, line, monkeypatch):
    monkeypatch.setattr("mlxlab.extensions.cloud.fetch.project_root", lambda: line.project)
    assert line("-m", f"resume={address(store)}", "trainer.max_steps=5,6", "tracking=none") == 0
    (copy,) = (line.project / "outputs").iterdir()
    assert [config.resume for config, _ in line.runs] == [str(copy)] * 2
    # Another folder than that of the checkpoint: a fork.
    assert copy not in [folder for _, folder in line.runs]
    assert line.err.count("fetched step-00000004") == 1


def test_a_damaged_checkpoint_is_skipped(store, tmp_path):
    (run,) = (store / "checkpoints").iterdir()
    names = sorted(run.glob("step-*.json"))
    newest, older = (json.loads(path.read_text())["files"] for path in reversed(names[-2:]))
    known = {file["sha256"] for file in older.values()}
    for file in newest.values():
        if file["sha256"] not in known:
            (run / "files" / file["sha256"]).write_bytes(b"damaged")
    folder = fetch(address(store), str(tmp_path / "new"))
    step = CheckpointStore(folder / "checkpoints").load().step
    assert f"step-{step:08d}" == names[-2].stem
    shutil.rmtree(run / "files")
    skipped = r"no usable checkpoint, skipped step-[-\d, step]+$"
    with pytest.raises(CheckpointUnavailableError, match=skipped):
        fetch(address(store), str(tmp_path / "other"))
    assert not list(tmp_path.glob("*other*"))


def test_another_folder_is_not_overwritten(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(CannotCreateError, match="not empty"):
        fetch(address(store), str(tmp_path / "mine"))


def test_an_address_without_one_run_is_refused(store, tmp_path):
    with pytest.raises(InputNotFoundError, match="no committed checkpoint"):
        fetch(f"{store.as_uri()}/nothing", str(tmp_path / "new"))
    (run,) = (store / "checkpoints").iterdir()
    shutil.copytree(run, run.with_name("other"))
    with pytest.raises(InputNotFoundError, match=f"holds 2 runs.*{run.name}"):
        fetch(address(store), str(tmp_path / "new"))
    with pytest.raises(ConfigError, match="expected s3://"):
        fetch("ftp://host/x", str(tmp_path / "new"))
