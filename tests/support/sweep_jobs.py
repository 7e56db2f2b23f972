"""Jobs of sweeps that end in every way that a job can, in place of training."""

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

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
        case "slow":
            time.sleep(0.3)
    return 0.5 + config.seed
