"""Names of checkpoints to resume from."""

import pytest

from mlxlab.checkpoint.store import resolve_resume
from mlxlab.errors import CheckpointUnavailableError


@pytest.mark.parametrize("name", ["best", "last", "step-5"])
def test_a_keyword_in_a_folder_without_a_run_names_the_key_of_the_run_folder(name, tmp_path):
    with pytest.raises(
        CheckpointUnavailableError,
        match=r"there is none\); hydra\.run\.dir=<run folder> says which",
    ):
        resolve_resume(name, tmp_path)


def test_a_folder_without_a_checkpoint_needs_no_other_run_folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointUnavailableError, match=r"there is none\)$"):
        resolve_resume(str(tmp_path), tmp_path / "new")
