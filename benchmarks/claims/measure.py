"""Measures claims by their commands, records the values, and makes docs/explanation/claims.md."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.claims.ledger import PAGE, RECORDED, ROOT, Claim, Ledger, Measured, read_ledger
from benchmarks.claims.page import render
from mlxlab.errors import ConfigError, DataError, ServiceUnavailableError
from mlxlab.files.atomic import write_atomic
from mlxlab.terminal.nearest import suggestion


def measure_claims(only: str | None = None) -> str:
    """Returns what was measured and what no longer agrees, line by line.

    Args:
        only: ids of claims, separated by commas, or `all`, which takes hours; null measures none and makes the page.
    """
    ledger = read_ledger()
    names = list(ledger.claims) if only == "all" else only.split(",") if only else []
    for name in names:
        if name not in ledger.claims:
            raise ConfigError(f"only={name}: no such claim{suggestion(name, ledger.claims)}")
    lines = []
    for name in measure(ledger, names):
        write_atomic(RECORDED, format_measured(ledger))
        lines.append(f"{name}: {ledger.statement(name)}")
    faults = list(ledger.faults())
    if ledger.claims.keys() <= ledger.measured.keys():
        write_atomic(PAGE, render(ledger))
    return "\n".join([*lines, *faults]) or f"{PAGE.relative_to(ROOT)} is up to date"


def measure(ledger: Ledger, names: Iterable[str]) -> Iterable[str]:
    """Measures claims, each command once, and yields each id when its values are in the ledger."""
    outputs: dict[str, tuple[str, float]] = {}
    for name in names:
        claim = ledger.claims[name]
        command = claim["command"]
        if command not in outputs:
            outputs[command] = _run(command)
        values = read_values(claim, *outputs[command])
        date = datetime.now(UTC).date().isoformat()
        ledger.measured[name] = Measured(values=values, machine=describe_machine(), date=date)
        yield name


def read_values(claim: Claim, output: str, seconds: float) -> list[float]:
    """The values of a claim in what its command printed; DataError if they are not there."""
    texts = [] if claim["patterns"] else [f"{seconds:.1f}"]
    for pattern in claim["patterns"]:
        match = re.search(pattern, output, re.MULTILINE)
        if match is None:
            raise DataError(
                f"{claim['id']}: {pattern!r} is not in the output of: {claim['command']}"
            )
        texts += match.groups()
    scale = claim.get("scale", 1)
    return [round(float(text.replace(",", "")) * scale, 6) for text in texts]


def describe_machine() -> str:
    """Such as `Linux x86-64, 2 cores, MLX 0.32.4`."""
    cores = os.cpu_count()
    return f"{platform.system()} {platform.machine().replace('_', '-')}, {cores} cores, MLX {version('mlx')}"


def format_measured(ledger: Ledger) -> str:
    """The measured values in the order of the claims, a line for each."""
    names = [name for name in ledger.claims if name in ledger.measured]
    lines = [f"  {json.dumps(name)}: {json.dumps(ledger.measured[name])}" for name in names]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _run(command: str) -> tuple[str, float]:
    """(output, seconds) of a command, which finds this Python first; raises ServiceUnavailableError if it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    start = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", f"set -e\n{command}"],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceUnavailableError(
            f"exit code {done.returncode} of: {command}\n{done.stdout[-2000:]}"
        )
    return done.stdout, time.perf_counter() - start
