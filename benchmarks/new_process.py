"""Runs a module of this folder in a process of its own, as a user would start it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parents[1])


def run_module(name: str, args: list[str], folder: str, env: dict[str, str] | None = None) -> Any:
    """The JSON object that the module prints last, and as `start` when it was started, in seconds since 1970."""
    path = os.pathsep.join(
        filter(None, [ROOT, os.environ.get("PYTHONPATH")])
    )  # the run has a folder of its own
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | (env or {}),
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) | {"start": start}
