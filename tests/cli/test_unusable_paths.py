"""A path that no file can have is not found, and never an internal error."""

import pytest

from mlxlab.checkpoint.names import find_resumed_run
from mlxlab.checkpoint.store import load_named
from mlxlab.cli.train import read_flags
from mlxlab.distillation.load_teachers import TeacherLoader
from mlxlab.distillation.options import NO_DISTILLATION
from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.extensions.example_losses.selection import LossSelection
from mlxlab.inference.restore import find_run_dir, restore_from
from mlxlab.models.pretrained.load import resolve

PATHS = ["~nobody9/run", "~nobody9", "n" * 300, "n" * 300 + "/a/best", "n" * 300 + ".gguf"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "read",
    [
        lambda path, folder: load_named(path, folder),
        lambda path, folder: LossSelection("hardest", 50, "mean", path).chosen(0),
        lambda path, folder: restore_from(folder / path),
        lambda path, folder: resolve(path),
    ],
    ids=["resume", "data.select.source", "run", "model.pretrained"],
)
def test_a_path_that_cannot_exist_is_not_found(path, read, tmp_path):
    with pytest.raises(InputNotFoundError):
        read(path, tmp_path)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_cannot_exist_is_no_run_or_folder(path, tmp_path):
    assert find_resumed_run(path) is None
    assert find_run_dir(TeacherLoader(NO_DISTILLATION, None, tmp_path)._local_path(path)) is None
    with pytest.raises(ConfigError, match="not a folder of config files"):
        read_flags(["--config-dir", path])
