"""Native kernels from the build to a resumed run, with the machine's compiler: `pytest -m fault_injection`."""

import json
import platform
import shutil
import time

import pytest

from mlxlab.backend.ops.native.build import Cache, build
from mlxlab.backend.ops.native.toolchain import find_toolchain
from mlxlab.checkpoint.store import load_named
from mlxlab.record.run_file import read_run
from support.processes import final_state, killed_and_resumed, run, succeed, tiny_overrides

pytestmark = [
    pytest.mark.fault_injection,
    pytest.mark.skipif(
        platform.system() != "Linux" or not shutil.which("g++"), reason="needs Linux and g++"
    ),
]
TINY = tiny_overrides("trainer.max_steps=20", "trainer.eval_every=10")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A cache home with the kernels, and what a run with them records."""
    home = tmp_path_factory.mktemp("cache")
    done = succeed("build", script="kernels", XDG_CACHE_HOME=str(home), MLXLAB_NATIVE="")
    again = run("build", script="kernels", XDG_CACHE_HOME=str(home), MLXLAB_NATIVE="")
    assert (again.stdout, again.stderr) == (done.stdout, "")
    return home, done.stdout.strip()


@pytest.fixture
def variables(built):
    return {"XDG_CACHE_HOME": str(built[0]), "MLXLAB_NATIVE": "auto"}


@pytest.fixture(scope="module")
def native_run(built, tmp_path_factory):
    """A run with native kernels, its folder and its final state."""
    folder = tmp_path_factory.mktemp("run")
    done = run(*TINY, f"hydra.run.dir={folder}", XDG_CACHE_HOME=str(built[0]), MLXLAB_NATIVE="auto")
    assert f"kernels: {built[1]}" in done.stderr
    return folder, final_state(done)


def test_the_first_run_starts_the_build_and_a_later_one_uses_it(tmp_path):
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "MLXLAB_NATIVE": "auto"}
    short = tiny_overrides("trainer.max_steps=1", "trainer.eval_every=1")
    first = succeed(*short, f"hydra.run.dir={tmp_path}/first", **variables)
    assert first.stderr.count("native kernels are being built in the background") == 1
    assert read_run(tmp_path / "first").code.kernels == "none"
    until = time.monotonic() + 300
    while (status := info(**variables)["status"]) != "ready":
        assert status in ("building", "not built")
        assert time.monotonic() < until
        time.sleep(0.5)
    later = run(*short, f"hydra.run.dir={tmp_path}/later", **variables)
    assert "kernels: native " in later.stderr
    longer = tiny_overrides("trainer.max_steps=2", "trainer.eval_every=1")
    resumed = succeed(*longer, f"hydra.run.dir={tmp_path}/first", "resume=auto", **variables)
    assert "native" not in resumed.stderr
    longer = tiny_overrides("trainer.max_steps=3", "trainer.eval_every=1")
    fork = run(*longer, f"hydra.run.dir={tmp_path}/fork", f"resume={tmp_path}/first", **variables)
    assert "kernels: native " in fork.stderr


def info(**variables):
    return json.loads(run("info", "--json", script="kernels", **variables).stdout)


def test_the_kernels_of_a_run_are_recorded(built, native_run):
    folder, _ = native_run
    lock = json.loads((folder / "run.lock").read_text())
    assert lock["machine"]["kernels"] == built[1]
    assert read_run(folder).code.kernels == built[1]
    assert load_named("last", folder).state["metadata"]["kernels"] == built[1]
    assert f"kernels    {built[1]}\n" in run(f"run={folder}", script="info").stdout


def test_runs_with_native_kernels_are_equal_bit_for_bit(tmp_path, variables, native_run):
    required = [f"hydra.run.dir={tmp_path}", "backend.native=require"]
    again = run(*TINY, *required, **(variables | {"MLXLAB_NATIVE": ""}))
    assert final_state(again) == native_run[1]


def test_a_killed_and_resumed_run_ends_in_the_same_state(
    tmp_path, monkeypatch, variables, native_run
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert killed_and_resumed(TINY, tmp_path, 10) == native_run[1]


def test_verify_and_reproduce_use_the_kernels_of_the_run(tmp_path, variables, native_run):
    folder, _ = native_run
    succeed(f"run={folder}", script="verify", **variables)
    refused = run(f"run={folder}", script="verify", **(variables | {"MLXLAB_NATIVE": "off"}))
    assert refused.returncode == 77
    variables = variables | {"MLXLAB_NATIVE": ""}
    reproduced = run(f"run={folder}", f"out={tmp_path}/again", script="reproduce", **variables)
    assert "\nbit-exact: " in reproduced.stdout, reproduced.stderr
    assert "kernels: native " in reproduced.stderr


CRASH = "#include <cstdlib>\nstruct Crash { Crash() { std::abort(); } } crash;"


@pytest.mark.parametrize(
    ("source", "reason"), [(CRASH, "exit code -6"), ("int nothing;", "cannot be loaded")]
)
def test_a_library_that_crashes_or_is_another_one_fails_its_self_check(
    tmp_path, monkeypatch, source, reason
):
    (tmp_path / "other.cpp").write_text(source)
    compiler = tmp_path / "compiler"
    lines = ['for each; do [ "$last" = -o ] && output=$each; last=$each; done']
    compile_other = f'g++ -shared -fPIC {tmp_path}/other.cpp -o "$output"'
    lines += [f'[ -n "$output" ] && {compile_other} || g++ --version']
    compiler.write_text("\n".join(["#!/bin/sh", *lines]))
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    toolchain = find_toolchain()
    cache = Cache(tmp_path / "native")
    build(toolchain, cache)
    failure = cache.failure(toolchain.key) or ""
    assert "the self-check failed: " in failure
    assert reason in failure
