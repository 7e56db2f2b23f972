"""`mlxlab doctor`, with installations that are broken in several ways."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from support.processes import environment


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
    code, findings = doctor(
        tmp_path, packages=crash, XDG_CACHE_HOME=str(tmp_path / "file"), CXX="no-such-compiler"
    )
    assert code == 69
    statuses = {name: each["status"] for name, each in findings.items()}
    assert statuses == {
        "Python": "ok",
        "packages": "ok",
        "MLX": "error",
        "compiler": "warning",
        "config files": "ok",
        "folders": "error",
        "store": "ok",
    }
    assert "-11" in findings["MLX"]["value"]
    assert f"{tmp_path}/file" in findings["folders"]["value"]


@pytest.mark.fault_injection
def test_a_package_that_hangs_costs_its_check_only(tmp_path):
    hangs = {"mlx/__init__.py": "", "mlx/core.py": "import time; time.sleep(1000)"}
    code, findings = doctor(tmp_path, "timeout=20", packages=hangs)
    assert code == 69
    assert [name for name, each in findings.items() if each["status"] == "error"] == ["MLX"]


@pytest.mark.fault_injection
def test_a_package_without_its_library_is_an_error_with_the_command_that_installs_it(tmp_path):
    broken = {"mlx/__init__.py": "raise ImportError('no libmlx.so')"}
    code, findings = doctor(tmp_path, packages=broken)
    assert code == 69
    assert "no libmlx.so" in findings["MLX"]["value"]
    assert "[cpu]" in findings["MLX"]["value"]


@pytest.mark.fault_injection
def test_stores_that_cannot_be_used_are_reported(tmp_path):
    path = tmp_path / "store.db"
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{path}"}
    path.write_text("no database, but long enough to be taken for one" * 100)
    _, findings = doctor(tmp_path, **uri)
    assert findings["store"]["value"] == f"sqlite:///{path}: file is not a database"
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('old')")
        _, findings = doctor(tmp_path, **uri)
        assert findings["store"]["value"].startswith(f"sqlite:///{path}: ")
        assert "'old'" in findings["store"]["value"]  # the schema
        database.execute("begin exclusive")
        code, findings = doctor(tmp_path, **uri)
    assert (code, findings["store"]["value"]) == (69, f"sqlite:///{path}: database is locked")
    _, findings = doctor(tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert findings["store"]["status"] == "error"
