"""The server of `forks` forks a process that has imported this."""

import os

os.environ["JE_ARROW_MALLOC_CONF"] = (
    "background_thread:false"  # pandas brings pyarrow, which brings a thread
)

from support.fault_injection.preload import preload

PACKAGES = (
    "callbacks",
    "checkpoint",
    "config",
    "data",
    "distributed",
    "experiment",
    "models",
    "ops",
    "training",
)
COMMANDS = ("evaluate", "generate", "lr_find", "predict", "runs", "train", "train.multirun")
OTHERS = (
    "mlflow.store.tracking.sqlalchemy_store",
    "mlxlab.tracking.journal",
    "mlxlab.tracking.mlflow.syncer",
)

preload(PACKAGES, (*(f"mlxlab.cli.{name}" for name in COMMANDS), *OTHERS))
os.fsync = lambda descriptor: None  # as in `conftest`
assert len(os.listdir("/proc/self/task")) == 1
