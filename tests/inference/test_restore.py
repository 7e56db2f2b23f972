"""Restoring models from folders that do not hold what they should."""

import json

import pytest

from mlxlab.errors import DataError
from mlxlab.inference.restore import ENSEMBLE_FILE, config_dir_of, restore_model


@pytest.mark.parametrize("member", [".", "missing", "../itself"])
def test_an_ensemble_of_itself_is_refused(tmp_path, member):
    folder = tmp_path / "itself"
    folder.mkdir()
    (folder / ENSEMBLE_FILE).write_text(json.dumps({"format": 1, "members": [member], "combine": "logits"}))
    for use in (restore_model, config_dir_of):
        with pytest.raises(DataError, match=r"expected runs as members, .*itself is an ensemble"):
            use(folder)
