"""The cache of built libraries: what someone else could have written is never loaded."""

import os

import pytest

from mlxlab.backend.ops.native.build import Cache
from mlxlab.backend.ops.native.toolchain import KernelsUnavailable

KEY = "0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path):
    """A cache with a library."""
    cache = Cache(tmp_path / "mlxlab" / "native")
    cache.create()
    cache.path(KEY, "so").write_bytes(b"\x7fELF library")
    return cache


def test_only_its_user_can_open_a_new_folder(cache):
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert cache.has_library(KEY)


def _link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _replace_by_file(path):
    path.rename(path.with_name("elsewhere"))
    path.write_text("")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_link, "expected a folder, not a link or a file"),
        (_replace_by_file, "expected a folder, not a link or a file"),
        (lambda path: path.chmod(0o770), "other users can write it; expected mode 700"),
        (lambda path: path.chmod(0o702), "other users can write it; expected mode 700"),
        pytest.param(
            lambda path: os.chown(path, 12345, -1),
            "belongs to another user",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away"),
        ),
    ],
)
def test_a_folder_that_others_could_have_written_is_refused(cache, spoil, message):
    spoil(cache.folder)
    for act in (cache.create, lambda: cache.failure(KEY)):
        with pytest.raises(KernelsUnavailable, match=message) as refused:
            act()
        assert str(refused.value).startswith(f"{cache.folder}: ")
