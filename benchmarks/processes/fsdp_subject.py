"""One process of a benchmark of `trainer.parallel`: takes steps and saves a checkpoint; prints a line of JSON."""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.config import read_config
from benchmarks.memory.predict_memory import UNIT
from benchmarks.subject import NoData, trainer_node
from mlxlab.backend import prepare
from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch
from mlxlab.models.build import build_model
from mlxlab.training.callback import FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer
from mlxlab.training.device_batch import to_device
from mlxlab.training.distributed.process_group import init_process_group

VOCABULARY = 512


def main(parallel: Any, size: str, step: str, rows: int, length: int, steps: int) -> dict[str, Any]:
    """Peak bytes of MLX in training and in saving, of the process, and seconds per step; of this rank."""
    group = init_process_group(parallel, 300.0)
    node = read_config("model/transformer") | read_config(f"model/size/{size}") | {"dropout": 0.0}
    model = build_model(node, kind="language_modelling", vocab_size=VOCABULARY, seed=0)
    node = trainer_node(step)
    if step == "optimized":
        node["step"] |= {"compile": "never"}
    trainer = instantiate(node)
    state = trainer.init_state(model, NoData())
    state.shard(group)
    take_step = trainer.make_step(state, group)
    model.train()
    batch = random_rows(rows, length)
    seconds = []
    mx.eval(model.parameters(), state.optimizer.state)
    mx.reset_peak_memory()
    for _ in range(steps):
        start = time.perf_counter()
        with group.computing():
            result = take_step(to_device(group.shard(batch)))._replace(batch=batch)
        seconds.append(time.perf_counter() - start)
        state.record(result)
    peak, used = mx.get_peak_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    mx.reset_peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        is_rank_zero = group.rank == 0
        saver = (
            Checkpointer(1, 1, background=False, folder=Path(folder))
            if is_rank_zero
            else NoCheckpointer()
        )
        saver.on_step(FitContext("valid/loss", group=group), state, result)
    return {
        "rank": group.rank,
        "loss": result.loss / result.weight,
        "peak": peak,
        "resident": used,
        "saving": max(mx.get_peak_memory(), mx.get_active_memory()),
        "rss_after_saving": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT,
        "seconds": sorted(seconds)[len(seconds) // 2],
    }


def random_rows(rows: int, length: int) -> Batch:
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (rows, length + 1)).astype(np.int32)
    ones = np.ones((rows, length), np.int32)
    return Batch(tokens[:, :-1], ones, tokens[:, 1:], ones.astype(np.float32), np.arange(rows))


if __name__ == "__main__":
    prepare()
    parallel, size, step, *numbers = sys.argv[1:]
    print(json.dumps(main(parallel, size, step, *map(int, numbers))), flush=True)
