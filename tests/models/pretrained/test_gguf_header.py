"""A damaged GGUF header is one line; MLX's reader would end the process."""

import os
import struct

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import DataError
from mlxlab.models.pretrained.gguf import read_gguf
from mlxlab.models.pretrained.gguf_header import BLOCKS


@pytest.fixture
def path(tmp_path):
    metadata = {"general.architecture": "llama", "words": ["a", "bc"], "numbers": mx.arange(3), "one": mx.array(1)}
    mx.save_gguf(str(tmp_path / "x.gguf"), {"w": mx.ones((2, 32)), "half": mx.ones(3, mx.float16)}, metadata)
    return tmp_path / "x.gguf"


@pytest.mark.parametrize(("first", "value"), [(24, 2**62), (24, 2**64 - 8), (8, 10**15), (16, 10**15), (4, 7)])
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


@pytest.mark.parametrize("kind", [*BLOCKS, 4, 28, 30, 99])
def test_tensors_of_every_type_are_read_or_refused(path, kind):
    numbers, size = BLOCKS.get(kind, (256, 512))
    name = struct.pack("<Q", 1) + b"w"
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + name + struct.pack("<IQIQ", 1, numbers, kind, 0)
    path.write_bytes(header.ljust(-(-len(header) // 32) * 32, b"\0") + bytes(size))
    try:
        mx.eval(read_gguf(path)[0])
    except DataError:
        assert kind not in (0, 1, 2, 3, 8)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "p.gguf")
    with pytest.raises(DataError, match="expected a regular file"):
        read_gguf(tmp_path / "p.gguf")
