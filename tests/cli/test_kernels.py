"""`mlxlab kernels`: what is printed, and the exit codes."""

import json
import platform

import pytest

from support.processes import run_here

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the kernels are for Linux")


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "false")


def kernels(*args):
    done = run_here(*args, script="kernels")
    return done.returncode, done.stdout, done.stderr


def test_info_tells_what_there_is_before_a_build():
    code, out, _ = kernels("info", "--json")
    info = json.loads(out)
    assert (code, info["status"], info["kernels"]) == (0, "not built", "")
    assert info["compiler"].endswith("/false")
    assert kernels("info")[1].startswith("status    not built\n")


def test_a_failed_build_ends_with_69_and_info_tells_why():
    code, _, err = kernels("build")
    assert code == 69
    assert err.splitlines()[-1].startswith("native kernels: the compiler failed with exit code 1")
    reason = "the compiler failed with exit code 1: without a message"
    assert kernels("info")[1].startswith(f"status    failed\nreason    {reason}\n")


def test_a_folder_that_others_can_write_is_not_used(tmp_path):
    (tmp_path / "mlxlab" / "native").mkdir(parents=True, mode=0o777)
    (tmp_path / "mlxlab" / "native").chmod(0o777)
    reason = f"{tmp_path}/mlxlab/native: other users can write it; expected mode 700"
    code, _, err = kernels("build")
    assert (code, err) == (69, f"native kernels: {reason}\n")
    assert kernels("info")[1] == f"status    unavailable\nreason    {reason}\n"
