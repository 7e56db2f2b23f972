"""Cache files: forged, sparse and damaged ones are not read, and built again."""

import shutil
import time

import pytest

from mlxlab.data.cache import HEADER_BYTES, cached

MAGIC = b"ARROW1"  # at both ends of an Arrow file
HUGE = 20 * 2**30
CONTENT = MAGIC + bytes(range(256)) * 32 + MAGIC


def open_cached(path):
    content, outcome = cached(
        path, lambda file: file.write(CONTENT), lambda data: data[HEADER_BYTES:]
    )
    assert content == CONTENT
    return outcome


def zeros(path):
    path.write_bytes(b"")
    return path


def header_and_end(path):
    """A valid file, stretched by a hole that ends as an Arrow file does."""
    with path.open("r+b") as file:
        file.truncate(HUGE - len(MAGIC))
        file.seek(0, 2)
        file.write(MAGIC)
    return path


def forged_size(path):
    """The same, with a header that names the new size."""
    header_and_end(path)
    with path.open("r+b") as file:
        digest = file.read(HEADER_BYTES).split()[1]
        file.seek(0)
        file.write(b"mlxlab %s %d" % (digest, HUGE))
    return path


@pytest.mark.parametrize("damage", [zeros, header_and_end, forged_size])
def test_a_sparse_file_of_20_gigabytes_is_refused_by_its_ends(tmp_path, damage):
    path = tmp_path / "content"
    assert open_cached(path) == "miss"
    damage(path)
    with path.open("r+b") as file:
        file.truncate(HUGE)
    began = time.process_time()
    assert open_cached(path) == "miss"
    assert time.process_time() - began < 1
    assert path.stat().st_size < 2**20
    assert open_cached(path) == "hit"


def test_a_file_of_another_name_or_with_another_byte_is_built_again(tmp_path):
    path = tmp_path / "content"
    open_cached(path)
    shutil.copy(path, tmp_path / "other.arrow")
    assert open_cached(tmp_path / "other.arrow") == "miss"
    data = bytearray(path.read_bytes())
    for index in range(0, len(data), len(data) // 20):
        path.write_bytes(bytes([*data[:index], data[index] ^ 4, *data[index + 1 :]]))
        assert open_cached(path) == "miss", index
