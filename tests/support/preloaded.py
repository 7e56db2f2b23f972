"""Imports what runs need, and composes a config once: the server of `forks` forks a process that has done this.

Nothing of MLX runs here: it has no threads to lose.
"""

import io
import os

os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pandas brings pyarrow, which brings a thread

from mlxlab.callbacks.plots import new_figure
from mlxlab.config.hydra.compose import Composer
from mlxlab.config.paths import conf_dir
from support.fault_injection.preload import preload

PACKAGES = ("callbacks", "checkpoint", "config", "data", "distributed", "experiment", "models", "ops", "training")
COMMANDS = ("evaluate", "generate", "lr_find", "predict", "runs", "train", "train.multirun")
OTHERS = (
    "mlflow.store.tracking.sqlalchemy_store",
    "mlxlab.tracking.journal",
    "mlxlab.tracking.mlflow.syncer",
)

preload(PACKAGES, (*(f"mlxlab.cli.{name}" for name in COMMANDS), *OTHERS))
Composer(conf_dir()).checked()
figure = new_figure(2, 2)
figure.subplots().set(xlabel="x", title="title")
figure.savefig(io.BytesIO())
assert len(os.listdir("/proc/self/task")) == 1
