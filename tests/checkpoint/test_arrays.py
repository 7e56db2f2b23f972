"""Safetensors files of others: whatever is wrong with one is one line."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.arrays import evaluate_finite, read_safetensors
from mlxlab.errors import DataError, InputNotFoundError

ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def write(path, header, data=bytes(16), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def test_arrays_are_read_as_they_were_written(tmp_path):
    arrays = {
        "a": mx.arange(6.0).reshape(2, 3),
        "b": mx.array([1, 2], mx.uint32),
        "c": mx.zeros((0, 4)),
    }
    mx.save_safetensors(str(tmp_path / "x.safetensors"), arrays, {"format": "mlx"})
    loaded = read_safetensors(tmp_path / "x.safetensors")
    evaluate_finite(loaded, "x")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize(
    ("header", "length", "fault"),
    [
        (b"{}", 2**63 - 1, "header too large"),
        (b"", 0, "invalid JSON"),
        (b"[]", None, "invalid type: sequence"),
        (b"[" * 10_000, None, "invalid type: sequence"),
        ({"a": ENTRY | {"dtype": "F64", "shape": [2]}}, None, "unsupported dtype F64"),
        ({"a": ENTRY | {"dtype": "F16"}}, None, "invalid shape, data type, or offset"),
        ({"a": ENTRY | {"shape": [2, -2]}}, None, "invalid value: integer `-2`"),
        ({"a": ENTRY | {"shape": [2**40, 2**40]}}, None, "overflow"),
        ({"a": ENTRY | {"data_offsets": [0, 2**30]}}, None, "offset"),
        ({"a": ENTRY | {"data_offsets": [16, 0]}}, None, "invalid offset"),
        ({"a": ENTRY | {"data_offsets": [16, 32]}}, None, "invalid offset"),
        ({"a": ENTRY, "b": ENTRY}, None, "invalid offset"),
    ],
)
def test_a_hostile_header_is_refused_in_one_line(tmp_path, header, length, fault):
    path = write(tmp_path / "x.safetensors", header, length=length)
    with pytest.raises(DataError, match=fault) as error:
        read_safetensors(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputNotFoundError):
        read_safetensors(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match="regular file"):
        read_safetensors(tmp_path)


def test_nan_is_refused_by_name(tmp_path):
    data = np.array([0, np.nan, 1, 2], np.float32).tobytes()
    arrays = read_safetensors(write(tmp_path / "x.safetensors", {"a": ENTRY}, data))
    with pytest.raises(DataError, match=r"^x: damaged weights: a holds NaN or infinity$"):
        evaluate_finite(arrays, "x")
