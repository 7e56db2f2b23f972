"""How the tests of the command line call it: in this process, in an empty project, with no experiment behind it."""

import logging
from pathlib import Path

import pytest

from mlxlab.cli import train
from mlxlab.run import entry


class Line:
    """A command line that was run: its exit code, its output, and what it left behind."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, project: Path
    ) -> None:
        self.capfd, self.project, self.runs = capfd, project, []
        monkeypatch.setattr(entry, "run_experiment", self._run)
        monkeypatch.setattr("mlxlab.config.check.project_root", lambda: project)
        monkeypatch.chdir(project)

    def __call__(self, *argv: str) -> int:
        self.capfd.readouterr()
        self.runs.clear()
        self.code = train.main([*argv, *self._in_process(argv)])
        self.out, self.err = self.capfd.readouterr()
        self.lines = self.err.splitlines()
        return self.code

    def _in_process(self, argv: tuple[str, ...]) -> list[str]:
        """The experiment of this process stands for one in another."""
        is_sweep = "-m" in argv or "hydra.mode=MULTIRUN" in argv
        is_chosen = any(
            arg.startswith(("hydra/launcher=", "hydra.launcher", "hydra/sweeper=basic"))
            for arg in argv
        )
        return ["hydra/launcher=basic"] if is_sweep and not is_chosen else []

    def refuses(self, *argv: str, code: int = 2, lines: int | None = 1) -> str:
        """Runs it, asserts that it ends with `code` and at most ten lines, and that nothing was created or trained."""
        before = sorted(self.project.rglob("*"))
        assert self(*argv) == code, self.err
        assert sorted(self.project.rglob("*")) == before, "something was created"
        assert not self.runs, "training started"
        assert not self.out
        assert "Traceback" not in self.err
        assert len(self.lines) == lines if lines else len(self.lines) <= 11, self.err
        return self.err.strip()

    def _run(self, config, folder: Path, **_options: object) -> float:
        self.runs.append((config, folder))
        return 0.5


@pytest.fixture
def line(monkeypatch, capfd, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    yield Line(monkeypatch, capfd, project)
    # `--info` lets Hydra log to the captured stderr, which is closed after the test.
    logging.root.handlers = [
        each for each in logging.root.handlers if type(each) is not logging.StreamHandler
    ]


@pytest.fixture
def user_config(tmp_path):
    """Writes `experiment/mine.yaml` of a user's own config folder; returns the flags that choose it."""

    def write(content: str | bytes, name: str = "experiment/mine.yaml") -> list[str]:
        file = tmp_path / "own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return ["--config-dir", str(tmp_path / "own"), "experiment=mine"]

    return write
