"""A resumed run uses the kernels it began with, or is refused in one line."""

import platform

import pytest

from mlxlab.backend.ops.native import state
from mlxlab.backend.ops.native.state import KernelSet
from mlxlab.errors import NotAllowedError
from mlxlab.run.resume import start
from mlxlab.run.resume.start import mode_to_reproduce, resume_kernels
from support.processes import run_here, succeed_here, tiny_overrides

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the kernels are for Linux")
NATIVE = KernelSet("0123456789abcdef", "avx512,bf16")


@pytest.fixture(autouse=True)
def _machine(monkeypatch, tmp_path):
    """A machine without a compiler."""
    monkeypatch.delenv("MLXLAB_NATIVE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    before = state.current()
    yield
    state.use(before)


@pytest.mark.parametrize("mode", ["auto", "off", "require"])
def test_a_run_continues_with_the_kernels_that_it_began_with(monkeypatch, mode):
    monkeypatch.setattr(start, "load_or_build", lambda: state.use(NATIVE) or NATIVE)
    if mode != "off":
        resume_kernels(str(NATIVE), mode)
        assert state.current() == NATIVE
    if mode != "require":
        state.use(NATIVE)
        resume_kernels("none", mode)
        assert not state.is_active()
    other = KernelSet(NATIVE.digest, "avx512")
    monkeypatch.setattr(start, "load_or_build", lambda: state.use(other) or other)
    if mode != "off":
        with pytest.raises(NotAllowedError, match=f"began with kernels {NATIVE}; here they are "):
            resume_kernels(str(NATIVE), mode)
        assert not state.is_active()


@pytest.mark.parametrize(
    ("earlier", "mode", "variable", "message"),
    [
        ("none", "require", "", "backend.native=require: the run began without native kernels"),
        ("none", "auto", "require", "MLXLAB_NATIVE=require: the run began without native kernels"),
        (str(NATIVE), "off", "", f"backend.native=off: the run began with kernels {NATIVE}"),
        (str(NATIVE), "require", "off", f"MLXLAB_NATIVE=off: the run began with kernels {NATIVE}"),
        (str(NATIVE), "auto", "", "which are not available: CXX='no-such-compiler': not found;"),
    ],
)
def test_other_kernels_are_refused_by_name(monkeypatch, earlier, mode, variable, message):
    monkeypatch.setenv("MLXLAB_NATIVE", variable)
    with pytest.raises(NotAllowedError) as refused:
        resume_kernels(earlier, mode)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not state.is_active()


def test_a_run_is_reproduced_with_its_kernels_or_else_with_what_there_is(caplog):
    caplog.set_level("INFO")
    assert mode_to_reproduce("none") == "off"
    assert mode_to_reproduce(str(NATIVE)) == "auto"
    assert caplog.messages == [
        f"kernels {NATIVE} are not available: CXX='no-such-compiler': not found"
    ]


def test_the_kernels_are_recorded_and_a_resume_with_others_is_refused(tmp_path):
    settings = tiny_overrides("trainer.max_steps=1", "trainer.eval_every=1")
    settings += [f"hydra.run.dir={tmp_path}/run"]
    began = succeed_here(*settings)
    assert "native kernels are not used: CXX='no-such-compiler': not found" in began.stderr
    described = run_here(f"run={tmp_path}/run", script="info").stdout
    assert "kernels    none\n" in described
    refused = run_here(*settings, "resume=auto", "backend.native=require")
    assert refused.returncode == 77
    assert refused.stderr.count("\n") == 1
    assert "the run began without native kernels" in refused.stderr
