"""Runs a case with the code of one checkout, in processes of its own."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from tests.golden.cases import REMOVED, RENAMED, Case, Stage
from tests.golden.inputs import write_inputs
from tests.golden.outcome import Outcome, Settings, checkpoints, read_arrays, read_losses

TIMEOUT = 900  # seconds; the first run with native kernels builds them
PROGRAM_VARIABLES = ("MLXLAB_", "MLX_", "MLFLOW_", "HYDRA_")


class RunError(Exception):
    """A run ended as it should not have; the message has the end of what it printed."""


class Runner:
    """Runs cases in a folder, which also becomes that of the program's caches."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout = checkout
        self.folder = folder
        write_inputs(folder / "inputs")
        self._check_imports()

    def run(self, case: Case, pinned: Sequence[Settings] = ()) -> Outcome:
        """The outcome of a case.

        Args:
            pinned: config of each stage at the reference commit: defaults that changed since do not apply.
        """
        settings = []
        for position, stage in enumerate(case.stages()):
            overrides = stage.overrides
            if pinned:
                overrides = pin(stage, pinned[position], self.folder)
            is_last = stage.folder == case.name
            command = self._command([*overrides, f"hydra.run.dir={stage.folder}"], case, is_last)
            if case.killed and is_last:
                command.append("resume=auto")
                self._run_until_killed(command, case)
            self._run(command, case)
            settings.append(read_settings(self.folder / stage.folder))
        run = self.folder / case.name
        return Outcome(settings, read_losses(run), read_arrays(run))

    def _command(self, overrides: list[str], case: Case, is_last: bool) -> list[str]:
        if case.processes > 1 and is_last:
            launch = ["-m", "mlxlab", "launch", f"nproc={case.processes}"]
            return [sys.executable, *launch, *overrides]
        return [sys.executable, str(self.checkout / "scripts" / "train.py"), *overrides]

    def _run(self, command: list[str], case: Case) -> None:
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self._environment(case.native),
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RunError(f"still running after {TIMEOUT} s") from None
        if done.returncode:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
            raise RunError(f"exit code {done.returncode}\n{end}")

    def _run_until_killed(self, command: list[str], case: Case) -> None:
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment(case.native),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not checkpoints(self.folder / case.name):
            time.sleep(0.002)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            raise RunError(f"exit code {process.returncode} before it could be killed")

    def _environment(self, native: bool) -> dict[str, str]:
        variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(PROGRAM_VARIABLES) and name != "PYTHONDONTWRITEBYTECODE"
        }
        return variables | {
            "PYTHONPATH": str(self.checkout / "src"),
            "OPENBLAS_NUM_THREADS": "1",
            "MLXLAB_DEVICE": "cpu",
            "MLXLAB_NATIVE": "require" if native else "off",
        }

    def _check_imports(self) -> None:
        """Raises RunError if the environment's own installation hides the code of the checkout."""
        done = subprocess.run(
            [sys.executable, "-c", "import mlxlab; print(mlxlab.__file__)"],
            cwd=self.folder,
            env=self._environment(native=False),
            capture_output=True,
            text=True,
            check=False,
        )
        expected = self.checkout / "src" / "mlxlab" / "__init__.py"
        imported = done.stdout.strip() or done.stderr.strip()
        if imported != str(expected):
            raise RunError(f"expected the package {expected}, got {imported}")


def can_build_kernels() -> bool:
    """Whether this machine has what the native kernels need."""
    compilers = [os.environ.get("CXX") or "g++", "clang++", "c++"]
    return platform.system() == "Linux" and any(map(shutil.which, compilers))


def read_settings(run: Path) -> Settings:
    hydra = OmegaConf.load(run / ".hydra" / "hydra.yaml")
    choices = {
        group: choice
        for group, choice in hydra.hydra.runtime.choices.items()
        if choice is not None and not group.startswith("hydra/")
    }
    return Settings(choices, (run / ".hydra" / "config.yaml").read_text())


def pin(stage: Stage, settings: Settings, folder: Path) -> list[str]:
    """Overrides that give a run all settings of its reference, in the present keys.

    Choices of groups become overrides. The values stand in a config file `experiment/<name>.yaml`: it is composed after
    the shipped files and before the overrides of the stage.
    """
    typed = [rename_override(override) for override in stage.overrides]
    chosen = {override.split("=")[0] for override in typed}
    choices = {rename(group): choice for group, choice in settings.choices.items()}
    pinned = [
        f"{group}={choice}"
        for group, choice in choices.items()
        if group not in chosen and group not in REMOVED
    ]
    path = folder / "conf" / "experiment" / f"{stage.folder}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = OmegaConf.create(pinned_values(settings.config))
    path.write_text(f"# @package _global_\n{OmegaConf.to_yaml(values)}")
    config_dir = ["--config-dir", str(path.parents[1])]
    return [*config_dir, f"experiment={stage.folder}", *pinned, *typed]


def pinned_values(config: str) -> dict[str, object]:
    """The config in the present keys, without what the group options say: which code is called."""
    values = OmegaConf.create(config)
    for new, old in RENAMED.items():
        value = OmegaConf.select(values, old)
        if value is not None:
            remove(values, old)
            OmegaConf.update(values, new, value, force_add=True)
    for key in REMOVED:
        remove(values, key)
    return without_targets(OmegaConf.to_container(values))


def remove(values: DictConfig, key: str) -> None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(values, parent) if parent else values
    if node is not None:
        node.pop(name, None)


def without_targets(node: dict[str, object]) -> dict[str, object]:
    """A copy without `_target_` and `_partial_`, and without mappings that hold nothing else."""
    values = {}
    for name, value in node.items():
        if name in ("_target_", "_partial_"):
            continue
        if isinstance(value, dict):
            value = without_targets(value)
            if not value:
                continue
        values[name] = value
    return values


def rename_override(override: str) -> str:
    key, equals, value = override.partition("=")
    name = key.lstrip("~+")
    return key.removesuffix(name) + rename(name) + equals + value


def rename(key: str) -> str:
    """The present name of a key or group."""
    for new, old in RENAMED.items():
        if key == old or key.startswith((f"{old}.", f"{old}/")):
            return new + key.removeprefix(old)
    return key
