"""`mlxlab doctor`, with installations that are broken in several ways."""

import json
import subprocess
import sys

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


def test_a_crash_of_mlx_is_reported_beside_all_else(tmp_path):
    crash = {"mlx/__init__.py": "", "mlx/core.py": "import os; os.kill(os.getpid(), 11)"}
    code, findings = doctor(tmp_path, packages=crash, CXX="no-such-compiler")
    assert code == 69
    faults = {name: each["status"] for name, each in findings.items() if each["status"] != "ok"}
    assert faults == {"MLX": "error", "compiler": "warning"}
    assert findings.keys() - faults == {"Python", "packages", "config files"}
    assert "-11" in findings["MLX"]["value"]
