"""Jobs of sweeps that end in every way that a job can, in place of training."""

import faulthandler
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from mlxlab.analysis.sweeps.sweep_start import SweepStart, write_sweep_start
from mlxlab.cli.train import app as train_app
from mlxlab.config import paths
from mlxlab.config.hydra.compose import compose, open_hydra
from mlxlab.errors import DataError, DivergenceError, InputNotFoundError
from mlxlab.record.attempts import JobRecord
from mlxlab.record.run_file import new_record, read_run, write_run
from mlxlab.record.run_record import JobIdentity
from support.run_records import attempt_of

WAYS = {
    "raise": "ZeroDivisionError: division by zero",
    "data": "rows.csv:3:5: a number was expected",
    "diverge": "no evaluation was finite",
    "nan": "valid/loss is nan",
    "exit": "exited with code 3 before its end",
    "leave": "exited with code 0 before its end",
    "kill": "killed by SIGKILL",
    "crash": "killed by SIGSEGV",
    "hang": "timeout: took more than 8 seconds",
    "memory": "took more than the 0.4 GB of hydra.launcher.memory_limit",
}

LEFT: list[Any] = []  # by jobs in their process

CONFIG = """
defaults: [_self_, override hydra/job_logging: none, override hydra/hydra_logging: none]
way: good
seed: 0
objective: valid/loss
resume: null
hydra:
  sweep: {{dir: {folder}, subdir: "${{hydra.job.num}}"}}
  job: {{chdir: false}}
"""


def write_config(folder: Path) -> tuple[DictConfig, HydraContext]:
    """A sweep in `folder/sweep` of a config that takes milliseconds."""
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "train.yaml").write_text(CONFIG.format(folder=folder / "sweep"))
    for option in ("launcher/isolated", "sweeper/grid"):
        shipped = Path(__file__).resolve().parents[2] / "conf" / "hydra" / f"{option}.yaml"
        copy = folder / "conf" / "hydra" / f"{option}.yaml"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(shipped.read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "conf_dir", lambda: folder / "conf")
        return compose_sweep([])


def compose_sweep(overrides: list[str]) -> tuple[DictConfig, HydraContext]:
    """The config of a whole sweep, as Hydra gives it to a sweeper."""
    with open_hydra():
        app = GlobalHydra.instance().hydra
        config = app.compose_config("train", overrides, RunMode.MULTIRUN)
        return config, HydraContext(app.config_loader, Callback())


def checked_config(args: list[str]) -> DictConfig:
    """The checked config of `train` with these arguments; with -m, that of the sweep, whose jobs are checked too."""
    overrides = [arg for arg in args if "=" in arg]
    if "-m" not in args:
        return compose(overrides)
    with open_hydra():
        config = GlobalHydra.instance().hydra.compose_config("train", overrides, RunMode.MULTIRUN)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mlxlab.run.entry.check_named_files", lambda _: None)
            train_app.check_sweep(config)
        return config


def act(config: DictConfig) -> float:
    """A job: writes that it began, then ends as `config.way` says."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with (folder / "began").open("a") as file:
        file.write(f"{os.getpid()} {config.resume}\n")
    match config.way:
        case "raise":
            return 1 / 0
        case "data":
            raise DataError(WAYS["data"])
        case "diverge":
            raise DivergenceError(WAYS["diverge"])
        case "nan":
            return float("nan")
        case "exit":
            sys.exit(3)
        case "leave":
            os._exit(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            faulthandler._sigsegv()
        case "crash once" if len((folder / "began").read_text().splitlines()) == 1:
            os.kill(os.getpid(), signal.SIGABRT)
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        case "memory":
            held = [b"x" * 2**26 for _ in range(8)]
            time.sleep(600)
            return float(len(held))
        case "wait":
            time.sleep(600)
        case "child":
            LEFT.append(subprocess.Popen(["sleep", "600"]))
        case "slow":
            time.sleep(0.3)
    return 0.5 + config.seed


def write_sweep(folder: Path, records: list[JobRecord], objective: str = "valid/loss") -> None:
    """The folder of a grid whose jobs came to this."""
    start: SweepStart = {
        "format": 2,
        "overrides": [],
        "config_dir": None,
        "config_name": "train",
        "sweeper": "grid",
        "shared": {"objective": objective},
        "jobs": [record.job.overrides for record in records],
    }
    write_sweep_start(folder, start)
    for record in records:
        if record.state != "waiting":
            write_job(folder / str(record.job.number), record)


def finished(number: int, overrides: list[str], value: float) -> JobRecord:
    return job_record(
        number, overrides, state="finished", exit_code=0, attempts=1, seconds=2.5, value=value
    )


def job_record(number: int, overrides: list[str], **fields: Any) -> JobRecord:
    return JobRecord(JobIdentity(number, overrides), **fields)


def write_job(folder: Path, job: JobRecord) -> None:
    """Makes the run of a folder one of a sweep that came to this."""
    record = new_record(folder)
    with suppress(InputNotFoundError):
        record = read_run(folder)
    record.job = job.job
    record.status = "interrupted" if job.state == "stopped" else job.state
    fields = {"end": 1e9 + job.seconds, "error": job.reason, "exit_code": job.exit_code}
    record.attempts = [attempt_of(record.status, **fields)]
    record.training.objective = job.objective
    record.training.best = job.value
    write_run(folder, record)
