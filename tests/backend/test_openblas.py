"""MLX multiplies with OpenBLAS on Linux CPU, before and after its import, or says once that it does not."""

import os
import subprocess
import sys
from importlib.metadata import distributions

import numpy as np
import pytest

from mlxlab.backend import openblas
from mlxlab.errors import ConfigError

PROCESS = """
import sys, warnings
{first}
from mlxlab import backend
assert ("mlx.core" in sys.modules) == {imported}, "mlxlab.backend itself imports nothing heavy"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("blas", backend.prepare(), backend.prepare(), len(caught), *[w.message for w in caught])
import mlx.core as mx, numpy as np
with mx.stream(mx.cpu):
    for dtype in (np.float32, np.complex64):
        a = np.arange(48).reshape(6, 8).astype(dtype)
        assert np.array_equal(np.array(mx.array(a) @ mx.array(a.T)), a @ a.T)
"""


def linux_cpu():
    installed = {(found.metadata["Name"] or "").lower() for found in distributions()}
    return sys.platform == "linux" and "mlx-cpu" in installed


needs_linux_cpu = pytest.mark.skipif(
    not linux_cpu(), reason="the BLAS is replaced on Linux CPU only"
)


def answer(first="", **environment):
    """What a fresh process says: the BLAS in use (of two calls), the number of warnings, their text."""
    code = PROCESS.format(first=first, imported="mlx.core" in first)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_linux_cpu
@pytest.mark.parametrize(
    "first",
    ["", "import mlx.core", "import mlx.core as mx; mx.eval(mx.ones((4, 4)) @ mx.ones((4, 4)))"],
)
def test_openblas_multiplies_whenever_mlx_was_imported(first):
    assert answer(first) == "blas openblas openblas 0"


@needs_linux_cpu
def test_the_jump_table_holds_the_addresses_of_openblas():
    """In a process of its own, for other tests may have chosen otherwise."""
    code = """
import ctypes
from mlxlab import backend
from mlxlab.backend import openblas
backend.prepare()
base, library = openblas._base_address(openblas.mlx_library()), openblas.find_openblas()
offsets = openblas.jump_slots(openblas.mlx_library().read_bytes())
slots = {n: ctypes.c_void_p.from_address(base + o).value for n, o in offsets}
for name in ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm"):
    assert slots[name] == ctypes.cast(getattr(library, "scipy_" + name), ctypes.c_void_p).value, name
"""
    subprocess.run([sys.executable, "-c", code], check=True)


ENDS_WHILE_COMPUTING = """
from mlxlab import backend
backend.prepare()
import mlx.core as mx
x = mx.ones((800, 800))
mx.async_eval(x @ x @ x @ x @ x @ x @ x)
"""


@needs_linux_cpu
def test_a_process_may_end_while_openblas_computes():
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", ENDS_WHILE_COMPUTING]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_can_be_turned_off():
    assert answer(MLXLAB_BLAS="0") == "blas as installed as installed 0"


@needs_linux_cpu
def test_without_openblas_there_is_one_warning_and_right_products():
    said = answer("from mlxlab.backend import openblas; openblas._folders = lambda: []")
    assert said.startswith("blas reference reference 1 OpenBLAS is not used")
    assert "scipy-openblas32 is not installed" in said


@needs_linux_cpu
def test_scipys_own_openblas_serves_too():
    first = "from mlxlab.backend import openblas; found = openblas._folders(); openblas._folders = lambda: found[1:]"
    assert answer(first) == "blas openblas openblas 0"


@needs_linux_cpu
def test_a_wrong_product_is_put_back():
    """`getpid` takes anything and writes nothing: what MLX then finds in the result is not the product."""
    first = """
import ctypes
from mlxlab.backend import openblas
openblas._address = lambda *_: ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value
"""
    said = answer(first)
    assert said.startswith("blas reference reference 1 OpenBLAS is not used")
    assert said.endswith("its products were wrong")


@needs_linux_cpu
def test_a_read_only_table_is_left_alone():
    first = """
from mlxlab.backend import openblas
mapped = openblas._mappings
openblas._mappings = lambda: [(span, "r--p", *rest) for span, _, *rest in mapped()]
"""
    assert "jump table is read-only" in answer(first)


def test_mlx_for_cuda_is_left_alone(tmp_path, monkeypatch):
    library = tmp_path / "mlx" / "lib" / "libmlx.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"not read")
    (tmp_path / "mlx_cuda_13.libs").mkdir()
    monkeypatch.setattr(openblas, "mlx_library", lambda: library)
    assert not openblas.use_openblas(lambda: pytest.fail("nothing to check"))


def test_what_is_no_elf_library_is_refused():
    with pytest.raises(OSError, match="not a library of x86-64 or AArch64"):
        openblas.jump_slots(b"\xcf\xfa\xed\xfe" + bytes(100))


def test_the_device_is_chosen_by_name():
    code = "import mlx.core as mx; from mlxlab import backend; backend.prepare(); print(mx.default_device())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"MLXLAB_DEVICE": "cpu"},
    )
    assert done.stdout.strip() == "Device(cpu, 0)"


@pytest.mark.parametrize(
    ("name", "value"),
    [("MLXLAB_DEVICE", "tpu"), ("MLXLAB_MEMORY", "lots"), ("MLXLAB_MEMORY", "nan")],
)
def test_a_wrong_word_is_refused_by_name(name, value, monkeypatch):
    from mlxlab import backend

    monkeypatch.setenv(name, value)
    if name == "MLXLAB_MEMORY":
        monkeypatch.setenv("MLXLAB_DEVICE", "cpu")
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        backend.prepare()


@needs_linux_cpu
def test_memory_is_limited_to_what_was_given():
    code = """
import mlx.core as mx
from mlxlab import backend
backend.prepare()
print(mx.set_memory_limit(1), mx.set_cache_limit(1))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"MLXLAB_MEMORY": "4"},
    )
    assert done.stdout.split() == ["4000000000", "1000000000"]


@needs_linux_cpu
def test_large_products_agree_with_numpy():
    import mlx.core as mx

    from mlxlab import backend

    backend.prepare()
    rng = np.random.default_rng(0)
    a, b = (
        rng.normal(size=(130, 257)).astype(np.float32),
        rng.normal(size=(257, 65)).astype(np.float32),
    )
    for x, y in ((a, b), (b.T, a.T)):
        np.testing.assert_allclose(np.array(mx.array(x) @ mx.array(y)), x @ y, rtol=1e-4, atol=1e-4)
