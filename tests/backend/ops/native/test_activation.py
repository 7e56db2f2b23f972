"""Which kernels a process uses, by the config and the environment."""

import platform

import pytest

from mlxlab.backend.ops.native import activation, build, state, toolchain
from mlxlab.backend.ops.native.activation import activate, activate_for_inference
from mlxlab.backend.ops.native.build import Cache
from mlxlab.backend.ops.native.state import MLX, KernelSet
from mlxlab.errors import ConfigError

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the kernels are for Linux")
NATIVE = KernelSet("0123456789abcdef", "avx512,bf16")


@pytest.fixture(autouse=True)
def _machine(monkeypatch, tmp_path):
    """A machine with an empty cache and without a compiler."""
    monkeypatch.delenv("MLXLAB_NATIVE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    before = state.current()
    yield
    state.use(before)


@pytest.mark.parametrize(("config", "variable"), [("off", ""), ("require", "off"), ("auto", "off")])
def test_off_returns_to_the_kernels_of_mlx_and_says_nothing(monkeypatch, caplog, config, variable):
    state.use(NATIVE)
    monkeypatch.setenv("MLXLAB_NATIVE", variable)
    assert activate(config) == MLX
    assert not state.is_active()
    assert not caplog.text


@pytest.mark.parametrize(
    ("config", "variable"), [("require", ""), ("auto", "require"), ("off", "require")]
)
def test_require_without_a_compiler_is_one_line_and_exit_code_2(monkeypatch, config, variable):
    monkeypatch.setenv("MLXLAB_NATIVE", variable)
    with pytest.raises(ConfigError) as refused:
        activate(config)
    assert str(refused.value) == "backend.native=require: CXX='no-such-compiler': not found"


def test_auto_without_a_compiler_uses_those_of_mlx_and_says_why(caplog):
    caplog.set_level("INFO")
    assert activate("auto") == MLX
    assert caplog.messages == ["native kernels are not used: CXX='no-such-compiler': not found"]


def test_a_wrong_variable_is_refused(monkeypatch):
    monkeypatch.setenv("MLXLAB_NATIVE", "on")
    for act in (lambda: activate("auto"), activate_for_inference):
        with pytest.raises(ConfigError, match=r"^MLXLAB_NATIVE=on: expected one of auto, off"):
            act()


def test_on_a_gpu_there_are_none(monkeypatch, caplog, tmp_path):
    for module in (activation, toolchain):
        monkeypatch.setattr(module, "on_cpu", lambda: False)
    assert activate("auto") == activate_for_inference() == MLX
    assert not caplog.text
    with pytest.raises(ConfigError, match="the default device is a GPU"):
        activate("require")
    assert not list(tmp_path.iterdir())


def test_auto_starts_no_second_build(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("CXX", "sh")
    started = []
    monkeypatch.setattr(build, "start_detached", lambda *args: started.append(args))
    assert activate("auto") == MLX
    cache = Cache()
    with cache.lock():
        assert activate("auto") == MLX
    assert len(started) == 1
    message = "native kernels are being built in the background; later runs use them"
    assert caplog.messages == [message] * 2
