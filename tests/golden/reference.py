"""The outcomes of reference commits on this machine, which are computed once."""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path

from tests.golden.cases import Case
from tests.golden.outcome import Outcome, Settings
from tests.golden.run import Runner

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "golden"
CPU = Path("/proc/cpuinfo")


class References:
    """Gives the outcome of a case at its reference commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runners: dict[str, Runner] = {}

    def outcome(self, case: Case) -> Outcome:
        path = CACHE / "outcomes" / f"{case.name}-{cache_key(case)}.json"
        if path.is_file():
            return read_outcome(path)
        outcome = self._runner(case.reference).run(case)
        write_outcome(path, outcome)
        return outcome

    def _runner(self, commit: str) -> Runner:
        if commit not in self._runners:
            self._runners[commit] = Runner(export(commit), self.folder / commit)
        return self._runners[commit]


def has_commit(commit: str) -> bool:
    """Whether the history of this checkout holds the commit: that of a shallow clone may not."""
    command = ["git", "merge-base", "--is-ancestor", commit, "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def has_full_history() -> bool:
    command = ["git", "rev-parse", "--is-shallow-repository"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "false"


def export(commit: str) -> Path:
    """A folder with the files of a commit."""
    folder = CACHE / "checkouts" / commit
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    archive = subprocess.run(
        ["git", "archive", "--format=tar", commit], cwd=ROOT, capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(temporary, filter="data")
    try:
        temporary.rename(folder)
    except OSError:  # Another process has exported it meanwhile.
        shutil.rmtree(temporary)
    return folder


def cache_key(case: Case) -> str:
    """A digest of all that the outcome depends on: the case, its data, how it is run, packages and processor."""
    digest = hashlib.sha256(repr(case).encode())
    digest.update(repr([asdict(stage) for stage in case.stages()]).encode())
    for name in ("inputs.py", "outcome.py", "run.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    packages = sorted((each.name, each.version) for each in distributions())
    machine = [platform.node(), platform.machine(), os.cpu_count(), sys.version]
    digest.update(repr([packages, machine]).encode())
    if CPU.is_file():
        lines = CPU.read_text().splitlines()
        fixed = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
        digest.update(repr(sorted(fixed)).encode())
    return digest.hexdigest()[:16]


def read_outcome(path: Path) -> Outcome:
    values = json.loads(path.read_text())
    settings = [Settings(**each) for each in values["settings"]]
    return Outcome(settings, values["losses"], values["arrays"])


def write_outcome(path: Path, outcome: Outcome) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(asdict(outcome), file)
    Path(file.name).rename(path)
