"""A damaged GGUF header is one line; MLX's reader would end the process."""

import os
import struct

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.models.pretrained.gguf import BFLOAT16, BLOCKS, read_gguf


@pytest.fixture
def path(tmp_path):
    metadata = {
        "general.architecture": "llama",
        "words": ["a", "bc"],
        "numbers": mx.arange(3),
        "one": mx.array(1),
    }
    mx.save_gguf(
        str(tmp_path / "x.gguf"), {"w": mx.ones((2, 32)), "half": mx.ones(3, mx.float16)}, metadata
    )
    return tmp_path / "x.gguf"


@pytest.mark.parametrize(
    ("first", "value"), [(24, 2**62), (24, 2**64 - 8), (8, 10**15), (16, 10**15), (4, 7)]
)
def test_a_length_beyond_the_file_is_refused(path, first, value):
    data = bytearray(path.read_bytes())
    data[first : first + 8] = struct.pack("<Q", value)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.gguf: not a valid GGUF file"):
        read_gguf(path)


def test_any_damage_is_refused_or_read(path):
    data, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        damaged = bytearray(data)
        for position in random.integers(4, len(data), random.integers(1, 4)):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged[: len(data) - random.integers(2) * random.integers(len(data))])
        try:
            mx.eval(read_gguf(path)[0])
        except DataError:
            refused += 1
    assert 40 < refused < 150


@pytest.mark.parametrize("kind", [*BLOCKS, 4, 28, 99])
def test_tensors_of_every_type_are_read_or_refused(path, kind):
    numbers, size = BLOCKS.get(kind, (256, 512))
    name = struct.pack("<Q", 1) + b"w"
    header = (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + name + struct.pack("<IQIQ", 1, numbers, kind, 0)
    )
    path.write_bytes(header.ljust(-(-len(header) // 32) * 32, b"\0") + bytes(size))
    try:
        mx.eval(read_gguf(path)[0])
    except DataError:
        assert kind not in (0, 1, 2, 3, 8, 30)


def test_numbers_of_bfloat16_are_read_as_they_are(path):
    """Also those beyond float16, in a matrix of 2 rows behind a vector."""
    values = mx.array([[1e-8, 1e-6, 7e4], [1e38, -1 / 3, 0.0]]).astype(mx.bfloat16)
    vector = mx.array([3.0, -3e-38]).astype(mx.bfloat16)
    header = b"GGUF" + struct.pack("<IQQ", 3, 2, 0)
    header += struct.pack("<Q6sIQIQ", 6, b"v.bias", 1, 2, BFLOAT16, 0)
    header += struct.pack("<Q8sIQQIQ", 8, b"w.weight", 2, 3, 2, BFLOAT16, 32)
    data = bytes(memoryview(vector.view(mx.uint16))).ljust(32, b"\0") + bytes(
        memoryview(values.view(mx.uint16))
    )
    path.write_bytes(header.ljust(-(-len(header) // 32) * 32, b"\0") + data)
    arrays, _ = read_gguf(path)
    for name, expected in {"v.bias": vector, "w.weight": values}.items():
        assert arrays[name].dtype == mx.bfloat16
        assert mx.array_equal(arrays[name], expected)


def test_a_pipe_and_another_file_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "p.gguf")
    with pytest.raises(DataError, match="expected a regular file"):
        read_gguf(tmp_path / "p.gguf")
    with pytest.raises(InputNotFoundError):
        read_gguf(tmp_path / "none.gguf")
    for data in (b"GGUF\3\0\0\0\7", b"PK\3\4 something else"):
        (tmp_path / "x.gguf").write_bytes(data)
        with pytest.raises(DataError, match="not a"):
            read_gguf(tmp_path / "x.gguf")
