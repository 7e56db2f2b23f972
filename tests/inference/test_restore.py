"""Restoring models from folders that do not hold what they should."""

import json
import shutil

import pytest

from mlxlab.errors import DataError, NotAllowedError
from mlxlab.inference.restore import ENSEMBLE_FILE, config_dir_of, restore_model, save_ensemble
from support.processes import succeed_here, tiny_overrides


@pytest.mark.parametrize("member", [".", "missing", "../itself"])
def test_an_ensemble_of_itself_is_refused(tmp_path, member):
    folder = tmp_path / "itself"
    folder.mkdir()
    (folder / ENSEMBLE_FILE).write_text(
        json.dumps({"format": 1, "members": [member], "combine": "logits"})
    )
    for use in (restore_model, config_dir_of):
        with pytest.raises(DataError, match=r"expected runs as members, .*itself is an ensemble"):
            use(folder)


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restore") / "run"
    own = ["data=table", "model=bert", "data.source=sklearn:wine", "data.target=target"]
    own += ["data.seq_len=64"]
    succeed_here(
        *tiny_overrides("trainer.max_steps=2", "trainer.eval_every=2"),
        *own,
        f"hydra.run.dir={folder}",
    )
    return folder


def changed(run, folder, **state):
    """A copy of a run with other contents of data.json."""
    shutil.copytree(run, folder, symlinks=True)
    path = folder / "inference" / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | state))
    return folder


def test_a_link_in_the_folder_of_an_ensemble_is_refused(table_run, tmp_path):
    save_ensemble(tmp_path, [table_run])
    (tmp_path / "link").symlink_to(table_run)
    with pytest.raises(NotAllowedError, match="link"):
        restore_model(tmp_path)


def test_members_of_an_ensemble_that_read_other_texts_are_refused(table_run, tmp_path):
    renderer = json.loads((table_run / "inference" / "data.json").read_text())["renderer"]
    renderer["bounds"]["alcohol"].pop()
    same = changed(table_run, tmp_path / "same")
    other = changed(table_run, tmp_path / "other", renderer=renderer)
    save_ensemble(tmp_path, [table_run, same])
    assert restore_model(tmp_path).encoder.task.kind == "classification"
    save_ensemble(tmp_path, [table_run, other])
    with pytest.raises(DataError, match=r"expected the same texts of a row, .*other differs from"):
        restore_model(tmp_path)


@pytest.mark.parametrize(
    ("length", "message"), [(8192, "positions for 512"), (100_000, "seq_len"), (1, "seq_len")]
)
def test_rows_longer_than_the_positions_of_the_model_are_refused(
    table_run, tmp_path, length, message
):
    folder = changed(table_run, tmp_path / "long", seq_len=length)
    with pytest.raises(DataError, match=message):
        restore_model(folder)
