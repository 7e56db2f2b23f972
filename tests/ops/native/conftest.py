"""Native kernels for a test, whatever the rest of the suite uses."""

import platform

import pytest

from mlxlab import backend
from mlxlab.ops.native import state
from mlxlab.ops.native.activation import activate
from mlxlab.ops.native.toolchain import KernelsUnavailable, find_toolchain


@pytest.fixture
def native(monkeypatch):
    if platform.system() != "Linux":
        pytest.skip("the kernels are for Linux")
    backend.prepare()
    try:
        find_toolchain()
    except KernelsUnavailable as reason:
        pytest.skip(str(reason))
    before = state.current()
    monkeypatch.setenv("MLXLAB_NATIVE", "require")
    yield activate("require")
    state.use(before)
