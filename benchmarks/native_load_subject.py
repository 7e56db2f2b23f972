"""Finds and loads the native kernels of this cache once; prints both times as JSON."""

import json
import time

from mlxlab import backend

if __name__ == "__main__":
    backend.prepare()
    import mlx.core as mx

    mx.eval(mx.zeros(1))
    start = time.perf_counter()
    from mlxlab.ops.native.cache import Cache
    from mlxlab.ops.native.toolchain import find_toolchain

    record = Cache().record(find_toolchain().key)
    found = time.perf_counter()
    from mlxlab.ops.native.activation import activate

    kernels = activate("auto")
    end = time.perf_counter()
    assert record is not None
    assert kernels.digest
    print(json.dumps({"find": found - start, "load": end - found}))
