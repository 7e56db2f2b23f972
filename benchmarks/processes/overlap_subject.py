"""One process of a benchmark of data-parallel steps: sums of gradients in turn with none; prints a line of JSON."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from benchmarks.processes.fsdp_subject import random_rows
from benchmarks.subject import NoData, language_model, trainer_node
from mlxlab.backend import prepare
from mlxlab.backend.ops.native.activation import activate
from mlxlab.config.instantiate import instantiate
from mlxlab.training.device_batch import to_device
from mlxlab.training.distributed.process_group import ProcessGroup, init_process_group

VOCABULARY = 5000


class SequentialGroup(ProcessGroup):
    """Sums gradients after all of them are computed."""

    def all_reduce_sum(self, tree: Any, per_example: Any) -> Any:
        mx.eval(tree, per_example)
        return super().all_reduce_sum(tree, per_example)


def main(size: str, step: str, rows: int, length: int, rounds: int) -> dict[str, Any]:
    """Median seconds of a step on the rows of this rank: without sums, after the backward pass, and during it."""
    group = init_process_group("data", 300.0)
    local = group.shard(random_rows(rows, length))
    groups = {"none": ProcessGroup(), "after": SequentialGroup(group.group, 300.0), "during": group}
    groups["after"].shard(random_rows(rows, length))
    steps = {name: make_step(size, step, each) for name, each in groups.items()}
    seconds: dict[str, list[float]] = {name: [] for name in groups}
    batch = to_device(local)
    for _ in range(rounds + 2):
        for name, take_step in steps.items():
            group.barrier()
            start = time.perf_counter()
            take_step(batch)
            seconds[name].append(time.perf_counter() - start)
    return {"rank": group.rank} | {
        name: statistics.median(times[2:]) for name, times in seconds.items()
    }


def make_step(size: str, step: str, group: ProcessGroup) -> Callable[[Any], object]:
    model = language_model("transformer", size, VOCABULARY, dropout=0.0)
    node = trainer_node(step)
    if step == "optimized":
        node["step"] |= {"compile": "always"}
    trainer = instantiate(node)
    model.train()
    taken: Callable[[Any], object] = trainer.make_step(trainer.init_state(model, NoData()), group)
    return taken


if __name__ == "__main__":
    prepare()
    activate("require")
    size, step, *numbers = sys.argv[1:]
    print(json.dumps(main(size, step, *map(int, numbers))), flush=True)
