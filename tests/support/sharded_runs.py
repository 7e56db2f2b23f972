"""Runs with and without sharded weights that must end alike; a process of a ring when it is started as a module.

    MLX_RANK=0 MLX_HOSTFILE=hosts.json python -m support.sharded_runs FOLDER bert-simple transformer-optimized

In FOLDER are the checkpoints of one process, `one/<case>`; it writes its own, `two/<case>`.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mlx.utils import tree_flatten

from mlxlab.checkpoint.state import empty_metadata
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.data.batch import Batch
from mlxlab.models.build import build_model
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer
from mlxlab.training.distributed.process_group import ProcessGroup, init_process_group
from mlxlab.training.optim.optimizers import adamw
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep
from support.models import OPTIMIZED_STEP, RandomBatches, Run, fit, make_run, make_trainer

STEPS, SAVED = 4, 2  # of a run, and of its checkpoint
SIZES = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "intermediate_size": 12, "dropout": 0.0}
MODELS: dict[str, dict[str, Any]] = {  # odd numbers of rows, and weights with a single one
    "bert": SIZES | {"_target_": "mlxlab.models.bert.Bert", "gated_layers": [1]},
    "transformer": SIZES | {"_target_": "mlxlab.models.transformer.Transformer"},
}
CLIPPED = OPTIMIZED_STEP | {"max_grad_norm": 0.05}
STEP_KINDS = {
    "simple": partial(PlainStep, max_grad_norm=0.05),  # clips
    "optimized": partial(OptimizedStep, **CLIPPED | {"accumulate": 2}),
    "compiled": partial(OptimizedStep, **CLIPPED | {"compile": "always"}),
}
HEAD = {"pattern": "head.*", "lr_scale": 3.0, "weight_decay": 0.1}
GROUPS = {"groups": [HEAD], "layer_decay": 0.8}
ROLLBACK = "-rollback"  # one step is not finite, and the run returns to its checkpoint
QUICK = ["bert-simple", "transformer-optimized", f"bert-simple{ROLLBACK}"]
CASES = [*QUICK, "bert-optimized", "transformer-simple", "transformer-compiled"]


class OverflowingBatches(RandomBatches):
    """The loss of the third batch is infinite."""

    def batch(self, rows: np.ndarray) -> Batch:
        batch = super().batch(rows)
        if self.index != SAVED + 1:
            return batch
        return batch._replace(loss_weights=batch.loss_weights * np.inf)


def train(case: str, folder: Path, group: ProcessGroup, *, resumed: Path | None = None) -> Run:
    """A run that saves its checkpoints in a folder, from its start or from the one of SAVED steps of another run."""
    family, step = case.removesuffix(ROLLBACK).split("-")
    batches = OverflowingBatches if case.endswith(ROLLBACK) else RandomBatches
    data = batches(batch_size=5)
    model = build_model(MODELS[family], kind="classification", num_classes=2, vocab_size=21, seed=0)
    run = make_run(model, data, group=group, metadata=empty_metadata())
    optimizer = partial(adamw, weight_decay=0.01, betas=[0.9, 0.999], eps=1e-8, **GROUPS)
    length = {"epochs": None, "max_steps": STEPS, "eval_every": SAVED, "max_nonfinite_steps": 1}
    parts = {"ema_decay": 0.9, "step": STEP_KINDS[step], "optimizer": optimizer}
    trainer = make_trainer(**length, **parts)
    if group.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
    saver = NoCheckpointer(folder)
    if group.rank == 0:
        saver = Checkpointer(SAVED, 9, background=True, folder=folder)
    checkpoint = CheckpointStore(resumed / "checkpoints").load(f"step-{SAVED}") if resumed else None
    fit(trainer, run, checkpointer=saver, checkpoint=checkpoint)
    if checkpoint is not None and group.shards_weights:
        assert not checkpoint.weights, "whole weights stay in memory"
    return run


def main(folder: Path, cases: list[str]) -> None:
    group = init_process_group("fsdp", 60.0)
    for case in cases:
        run = train(case, folder / "two" / case, group)
        held = sum(array.size for _, array in tree_flatten(run.model.parameters()))
        print(case, held, flush=True)
        # A folder without a checkpoint of its own cannot return to it.
        if not case.endswith(ROLLBACK):
            train(case, folder / "resumed" / case, group, resumed=folder / "one" / case)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
