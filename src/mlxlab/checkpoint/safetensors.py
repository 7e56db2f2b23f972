"""Arrays from the verified bytes of a safetensors file."""

import io
import sys
import time

import mlx.core as mx

Arrays = dict[str, mx.array]


def parse_arrays(data: bytes) -> Arrays:
    """The arrays by name, in memory; raises RuntimeError or ValueError if the bytes are not those of safetensors."""
    source = io.BytesIO(data)
    before = sys.getrefcount(source)
    arrays = mx.load(source, format="safetensors")
    assert isinstance(arrays, dict)
    mx.eval(arrays)  # lazy otherwise
    # MLX's reading threads release the source a moment later, and abort a process that is ending just then.
    deadline = time.monotonic() + 5
    while sys.getrefcount(source) > before and time.monotonic() < deadline:
        time.sleep(0.0002)
    return arrays
