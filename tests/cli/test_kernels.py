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
    assert (code, info["status"], info["build"]) == (0, "not built", None)
    assert info["inputs"]["compiler"][0].endswith("/false")
    assert info["inputs"]["processor"]
    assert kernels("info")[1].startswith("status     not built\n")


def test_a_failed_build_ends_with_69_and_info_tells_why(tmp_path):
    code, _, err = kernels("build")
    assert code == 69
    assert err.splitlines()[-1].startswith("native kernels: the compiler failed with exit code 1")
    info = json.loads(kernels("info", "--json")[1])
    assert (info["status"], info["build"]["self_check"]) == ("failed", "not run")
    assert (
        "status      failed: the compiler failed with exit code 1: without a message\n"
        in kernels("info")[1]
    )
    assert kernels("clear")[:2] == (0, f"{tmp_path}/mlxlab/native: removed 0 libraries, 0.0 MB\n")
    assert json.loads(kernels("info", "--json")[1])["status"] == "not built"


def test_without_a_compiler_info_names_it_and_build_ends_with_69(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert kernels("info")[1].startswith("status  unavailable: CXX='no-such-compiler': not found\n")
    assert kernels("build") == (69, "", "native kernels: CXX='no-such-compiler': not found\n")


def test_a_folder_of_someone_else_is_not_cleared(tmp_path):
    (tmp_path / "mlxlab" / "native").mkdir(parents=True, mode=0o777)
    (tmp_path / "mlxlab" / "native").chmod(0o777)
    code, _, err = kernels("clear")
    assert (code, err) == (
        73,
        f"{tmp_path}/mlxlab/native: other users can write it; expected mode 700\n",
    )
    assert kernels("info")[1].startswith(
        f"status  unavailable: {tmp_path}/mlxlab/native: other users can write it"
    )
