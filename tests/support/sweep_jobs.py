"""Jobs of sweeps that end in every way that a job can, in place of training."""

import faulthandler
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mlxlab.config.hydra.compose import Composer
from mlxlab.errors import DataError, DivergenceError

WAYS = {
    "raise": "ZeroDivisionError: division by zero",
    "data": "rows.csv:3:5: a number was expected",
    "diverge": "no evaluation was finite",
    "nan": "valid/loss is nan",
    "exit": "exited with code 3 before its end",
    "leave": "exited with code 0 before its end",
    "kill": "killed by SIGKILL",
    "crash": "killed by SIGSEGV",
    "hang": "timeout: took more than 5 seconds",
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


def write_config(folder: Path) -> Composer:
    """Composes sweeps in `folder/sweep` of a config that takes milliseconds."""
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "train.yaml").write_text(CONFIG.format(folder=folder / "sweep"))
    for option in ("launcher/isolated", "launcher/in_process", "sweeper/grid"):
        shipped = Path(__file__).resolve().parents[2] / "conf" / "hydra" / f"{option}.yaml"
        copy = folder / "conf" / "hydra" / f"{option}.yaml"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(shipped.read_text())
    return Composer(folder / "conf", multirun=True)


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
        case "obey":
            stop = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: stop.set())
            stop.wait()
        case "litter":
            litter()
        case "look":
            (folder / "seen.json").write_text(json.dumps(surroundings()))
        case "grow":
            LEFT.append(b"x" * 400_000_000)
        case "child":
            LEFT.append(subprocess.Popen(["sleep", "600"]))
        case "thread":
            threading.Thread(target=time.sleep, args=(0.3,)).start()
        case "slow":
            time.sleep(0.3)
    return 0.5 + config.seed


def write_attempts(folder: Path, *seconds: float) -> float:
    """The manifest of a run on which several processes worked, and its objective."""
    process = {"host": "other", "pid": 1, "process_start": 0.0, "status": "RUNNING", "start": 0.0}
    attempts = [{**process, "end": each} for each in seconds]
    manifest = {
        "format": 2,
        "id": folder.name,
        "name": folder.name,
        "status": "DONE",
        "attempts": attempts,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return 0.5


def litter() -> None:
    """Changes what every job of a process shares."""
    os.environ["LITTER"] = "1"
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    logging.getLogger().addHandler(logging.StreamHandler())
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger("litter").addHandler(logging.StreamHandler())
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    random.seed(1)
    np.random.seed(1)
    np.seterr(all="ignore")
    sys.path.append("/litter")
    sys.argv.append("litter")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def surroundings() -> dict[str, Any]:
    """What `litter` changes, as a job finds it."""
    os.umask(mask := os.umask(0))
    return {
        "environment": dict(os.environ),
        "cwd": os.getcwd(),
        "umask": mask,
        "handlers": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "logging": [str(logging.getLogger(name).handlers) for name in ("", "litter")],
        "level": [logging.getLogger().level, logging.root.manager.disable],
        "warnings": [str(each) for each in warnings.filters],
        "numpy": [str(np.random.get_state()[1].tolist()), str(np.geterr())],
        "sys": [sys.path, sys.argv, sys.stdout.name],
        "is seeded": random.random() == random.Random(1).random(),
    }
