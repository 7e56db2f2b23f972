"""Imports what runs need, and composes configs once: the server of `forks` forks a process that has done this.

Nothing of MLX runs here: it has no threads to lose.
"""

import gc
import io
import os
from contextlib import suppress

os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pandas brings pyarrow, which brings a thread

from mlxlab.callbacks.plots import new_figure
from mlxlab.config.hydra.compose import Composer
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError
from support.fault_injection.preload import preload

PACKAGES = ("callbacks", "checkpoint", "config", "data", "distributed", "experiment", "models", "ops", "training")
COMMANDS = ("evaluate", "generate", "lr_find", "predict", "runs", "train", "train.multirun")
OTHERS = (
    "mlflow.store.tracking.sqlalchemy_store",
    "mlxlab.tracking.journal",
    "mlxlab.tracking.mlflow.syncer",
)
# Of every form, so that the parsers of Hydra have their tables: they make them at the first use.
OVERRIDES = (
    [],
    ["model=transformer", "data=streaming", "trainer=optimized", "tracking=none", "data.source=a.jsonl"],
    ["model=cnn_hybrid", "trainer=distill", "trainer.teachers=[outputs/a-1]", "trainer.learning_rate=1e-3", "name=a b"],
    ["data=instruct", "hydra.run.dir=/tmp/run_1/a-b.c", "resume=auto", "+tags.x='a'", "seed=3", "no_such_key=1"],
    ["data=table", "data.target=y", "callbacks.growth.operations=[{id: a, op: stack, when: {after: 2}}]"],
)

preload(PACKAGES, (*(f"mlxlab.cli.{name}" for name in COMMANDS), *OTHERS))
for overrides in OVERRIDES:
    with suppress(ConfigError):
        Composer(conf_dir(), overrides).checked()
figure = new_figure(2, 2)
figure.subplots().set(xlabel="x", title="title")
figure.savefig(io.BytesIO())
os.fsync = lambda descriptor: None  # as in `conftest`
# What is collected here is not scanned, and so not copied, in each forked process.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 20, 50)
assert len(os.listdir("/proc/self/task")) == 1
