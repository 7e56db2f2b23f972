"""The server of `forks` forks a process that has imported this."""

import gc
import os

os.environ["JE_ARROW_MALLOC_CONF"] = (
    "background_thread:false"  # pandas brings pyarrow, which brings a thread
)

from support.fault_injection.preload import preload
from support.new_stores import copy_databases, use_database

PACKAGES = (
    "analysis",
    "callbacks",
    "checkpoint",
    "cli",
    "config",
    "data",
    "evaluation",
    "extensions",
    "inference",
    "models",
    "past_runs",
    "run",
    "stats",
    "sweep",
    "tracking",
    "training",
    "views",
)
LIBRARIES = (
    "mlflow.models",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking",
    "pandas",
    "scipy.optimize",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.model_selection",
)

preload(PACKAGES, LIBRARIES)
copy_databases()
use_database()
gc.freeze()  # as in `preload`
os.fsync = lambda descriptor: None  # as in `conftest`
assert len(os.listdir("/proc/self/task")) == 1
