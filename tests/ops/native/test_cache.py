"""The cache of built libraries: what someone else could have written is never loaded."""

import hashlib
import os

import pytest

from mlxlab.files.atomic import write_json
from mlxlab.ops.native.cache import BuildRecord, Cache, default_folder
from mlxlab.ops.native.toolchain import KernelsUnavailable

KEY, LIBRARY = "0123456789abcdef01234567", b"\x7fELF library"
RECORD = BuildRecord(
    error=None,
    sha256=hashlib.sha256(LIBRARY).hexdigest(),
    features="avx512",
)


@pytest.fixture
def cache(tmp_path):
    """A cache with a library and its record."""
    cache = Cache(tmp_path / "mlxlab" / "native")
    cache.create()
    cache.path(KEY, "so").write_bytes(LIBRARY)
    write_json(cache.path(KEY, "json"), RECORD)
    for kind in ("so", "json"):
        cache.path(KEY, kind).chmod(0o600)
    return cache


def test_only_its_user_can_open_a_new_folder(cache):
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert cache.record(KEY) == RECORD


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
    for act in (cache.create, lambda: cache.record(KEY)):
        with pytest.raises(KernelsUnavailable, match=message) as refused:
            act()
        assert str(refused.value).startswith(f"{cache.folder}: ")


@pytest.mark.parametrize("damage", [b"", LIBRARY[:-1], LIBRARY + b"x"])
def test_a_library_that_is_not_that_of_its_record_does_not_count(cache, damage):
    cache.path(KEY, "so").write_bytes(damage)
    assert cache.record(KEY) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"error": 2}', "\udcff"])
def test_a_damaged_record_does_not_count(cache, text):
    cache.path(KEY, "json").write_bytes(text.encode(errors="surrogateescape"))
    assert cache.record(KEY) is None


def test_a_removed_library_does_not_count(cache):
    cache.path(KEY, "so").unlink()
    assert cache.record(KEY) is None


def test_the_folder_is_below_xdg_cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "mlxlab" / "native"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by its specification
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_folder()) == "/home/someone/.cache/mlxlab/native"
