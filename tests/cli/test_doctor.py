"""`mlxlab doctor`, in processes of its own, with installations that are broken in several ways."""

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from mlxlab.cli.doctor.groups import GROUPS
from support.processes import environment
from support.pseudo_terminal import run_in_terminal


def doctor(folder, *args, packages=None, **variables):
    """(exit code, check -> finding); `packages` maps files of packages that hide the installed ones to their code."""
    for name, code in (packages or {}).items():
        path = folder / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    path = [str(folder / "packages"), *filter(None, sys.path)]
    env = environment() | {"PYTHONPATH": ":".join(path), **variables}
    command = [sys.executable, "-m", "mlxlab", "doctor", "--json", *args]
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stderr == ""
    return done.returncode, {each["check"]: each for each in json.loads(done.stdout)}


def test_a_crash_of_mlx_and_a_folder_that_cannot_be_written_are_reported_beside_all_else(tmp_path):
    (tmp_path / "file").touch()
    crash = {"mlx/__init__.py": "", "mlx/core.py": "import os; os.kill(os.getpid(), 11)"}
    code, findings = doctor(tmp_path, packages=crash, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert code == 69
    errors = {name: each["value"] for name, each in findings.items() if each["status"] == "error"}
    assert errors == {
        GROUPS["compute"]: "the check ended with killed by SIGSEGV",
        "user cache": f"{tmp_path}/file: cannot be written (Not a directory)",
    }
    assert {
        "Python",
        "memory",
        "cores",
        "clock",
        "outputs",
        "packages",
        "extra cloud",
        "store",
    } <= set(findings)
    assert findings["store"]["status"] == findings["outputs"]["status"] == "ok"
    assert findings["user cache"]["remedy"] == "make it writable, or set XDG_CACHE_HOME=FOLDER"


@pytest.mark.fault_injection
def test_a_healthy_installation_has_a_line_for_each_check_and_exit_code_0():
    screen = run_in_terminal(["-m", "mlxlab", "doctor"], 200)
    assert screen.code == 0
    assert screen.lines[-1] in ("no errors", "1 warning", "2 warnings")
    plain = [re.sub(r"\x1b\[\d+m", "", line) for line in screen.lines]
    assert len({line[:24] for line in plain}) == len(plain)  # status and name
    assert any(line.startswith("\x1b[32mok\x1b[0m       MLX   ") for line in screen.lines)
    narrow = run_in_terminal(["-m", "mlxlab", "doctor"], 40, {"NO_COLOR": "1"})
    assert "\x1b" not in narrow.text
    assert any(line.startswith("ok       Python: ") for line in narrow.lines)


@pytest.mark.fault_injection
def test_a_package_that_hangs_costs_its_group_only(tmp_path):
    hangs = {"mlx/__init__.py": "", "mlx/core.py": "import time; time.sleep(1000)"}
    code, findings = doctor(tmp_path, "timeout=20", packages=hangs)
    assert code == 69
    assert findings[GROUPS["compute"]]["value"] == "took more than 20 s"
    assert findings["store"]["status"] == "ok"


@pytest.mark.fault_injection
def test_missing_packages_are_named(tmp_path):
    code, findings = doctor(
        tmp_path, packages={"mlx/__init__.py": "raise ImportError('no libmlx.so')"}
    )
    assert code == 69
    assert findings["MLX"]["value"].startswith("cannot be used: ")
    assert "[cpu]" in findings["MLX"]["remedy"]


@pytest.mark.fault_injection
def test_without_openblas_there_is_a_warning(tmp_path):
    empty = {"scipy_openblas32/__init__.py": "", "scipy/__init__.py": ""}
    code, findings = doctor(tmp_path, packages=empty)
    assert code == 0
    assert findings["BLAS"]["status"] == "warning"
    assert "OpenBLAS is not used" in findings["BLAS"]["value"]
    assert findings["BLAS"]["remedy"] == "pip install --force-reinstall scipy-openblas32"


@pytest.mark.fault_injection
def test_stores_that_cannot_be_used_are_reported(tmp_path):
    path = tmp_path / "store.db"
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{path}"}
    path.write_text("no database, but long enough to be taken for one" * 100)
    _, findings = doctor(tmp_path, **uri)
    assert findings["store"]["value"] == f"{path}: file is not a database"
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('old')")
        _, findings = doctor(tmp_path, **uri)
        assert findings["store"]["value"].startswith(f"{path}: schema old, expected ")
        assert findings["store"]["remedy"] == f"back it up, then mlflow db upgrade sqlite:///{path}"
        database.execute("begin exclusive")
        code, findings = doctor(tmp_path, **uri)
    assert (code, findings["store"]["value"]) == (69, f"{path}: database is locked")
    _, findings = doctor(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert findings["store"]["status"] == "error"
