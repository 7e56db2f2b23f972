"""Weights sharded over a real ring of two processes: the results of one process, and its checkpoints."""

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import cache

import numpy as np
import pytest

from mlxlab.checkpoint.store import Checkpoint, CheckpointStore
from mlxlab.training.distributed.process_group import ProcessGroup
from support.models import assert_close
from support.processes import environment
from support.sharded_runs import CASES, QUICK, ROLLBACK, SAVED, STEPS, train

SLOW = [case for case in CASES if case not in QUICK]
CONTINUED = [case for case in QUICK if not case.endswith(ROLLBACK)]
RESUMED = [*CONTINUED, *(pytest.param(case, marks=pytest.mark.fault_injection) for case in SLOW)]
PARAMETERS = [*QUICK, *(pytest.param(case, marks=pytest.mark.fault_injection) for case in SLOW)]


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory):
    """A function: the folder of runs of one process, and of two that train the same, from both kinds of start."""

    @cache
    def make(cases: tuple[str, ...]):
        folder = tmp_path_factory.mktemp("sharded")
        for case in cases:
            train(case, folder / "one" / case, ProcessGroup())
        for process, (out, err) in run_ring(
            folder, "-m", "support.sharded_runs", str(folder), *cases
        ):
            assert process.returncode == 0, err
            (folder / "held").write_text(out)
        return folder

    return lambda case: make(tuple(QUICK if case in QUICK else SLOW))


def run_ring(folder, *args, count=2):
    """Processes of a ring that have ended, and their output."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        hosts = [[f"127.0.0.1:{server.getsockname()[1]}"] for server in servers]
    (folder / "hosts.json").write_text(json.dumps(hosts))
    more = {
        "MLX_HOSTFILE": str(folder / "hosts.json"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *args],
            env=environment(MLX_RANK=str(rank), **more),
            stdout=-1,
            stderr=-1,
            text=True,
        )
        for rank in range(count)
    ]
    return [(process, process.communicate(timeout=120)) for process in processes]


def load(folder, *names, step=STEPS) -> Checkpoint:
    return CheckpointStore(folder.joinpath(*names, "checkpoints")).load(f"step-{step}")


def assert_equal(actual: Checkpoint, expected: Checkpoint) -> None:
    for arrays, like in (
        (actual.weights, expected.weights),
        (actual.optimizer, expected.optimizer),
    ):
        assert arrays.keys() == like.keys()
        assert_close(arrays, like, atol=1e-4)


@pytest.mark.parametrize("case", PARAMETERS)
def test_sharded_weights_end_as_those_of_one_process(runs_of, case):
    """With clipping, an average, groups, a decay by layer, micro-batches, and rows that two does not divide."""
    folder = runs_of(case)
    expected, before = load(folder, "one", case), load(folder, "one", case, step=SAVED)
    assert any(
        np.abs(np.array(x - before.weights[name])).max() > 1e-3
        for name, x in expected.weights.items()
    )
    assert_equal(load(folder, "two", case), expected)


@pytest.mark.parametrize("case", RESUMED)
def test_a_checkpoint_of_one_process_is_continued_by_two(runs_of, case):
    assert_equal(load(runs_of(case), "resumed", case), load(runs_of(case), "one", case))


@pytest.mark.parametrize("case", RESUMED)
def test_a_checkpoint_of_two_processes_is_continued_by_one(runs_of, tmp_path, case):
    train(case, tmp_path, ProcessGroup(), resumed=runs_of(case) / "two" / case)
    assert_equal(load(tmp_path), load(runs_of(case), "one", case))


@pytest.mark.parametrize("case", PARAMETERS)
def test_a_process_holds_half_of_the_weights(runs_of, case):
    folder = runs_of(case)
    held = dict(line.split() for line in (folder / "held").read_text().splitlines())
    whole = sum(array.size for array in load(folder, "one", case).weights.values())
    assert 0.5 * whole <= int(held[case]) < 0.56 * whole
