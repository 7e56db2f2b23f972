"""Rounds of distillation that train nothing."""

from pathlib import Path

from mlxlab.distributed.process_group import ProcessGroup
from mlxlab.experiment.rounds import DistillationRounds
from mlxlab.experiment.run import RunContext
from mlxlab.experiment.run_writer import RunWriter
from mlxlab.experiment.signals import SignalHandler


def make_rounds(cfg: dict, folder: Path) -> DistillationRounds:
    context = RunContext(
        folder, folder, RunWriter(folder), SignalHandler(requeue=False), ProcessGroup()
    )
    return DistillationRounds(cfg, context)
