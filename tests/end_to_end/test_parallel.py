"""One run in several processes, over a real ring: the losses and weights of one process, and no hang."""

import functools
import json
import os
import shutil
import signal
import time
from contextlib import suppress

import mlx.core as mx
import numpy as np
import psutil
import pytest

from mlxlab.data.batch import Batch
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.training.distributed.process_group import bucket_leaves
from support.processes import (
    process_of_rank,
    run,
    run_here,
    run_ring,
    start,
    start_ring,
    succeed,
    succeed_here,
    tiny_overrides,
    wait_for,
)

CHEAP = ["data.templates=[basic]", "data.augment.copies=1"]
SETTINGS = tiny_overrides("trainer.max_steps=6", "trainer.eval_every=3", "model.dropout=0", *CHEAP)


@pytest.fixture(scope="module")
def single_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    return results(folder, run_here(*SETTINGS, f"hydra.run.dir={folder}"))


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """A function: folder, metrics and weights of a run of several processes, made once for each number of them."""

    @functools.cache
    def launch(count):
        folder = tmp_path_factory.mktemp("launched")
        return folder, *results(
            folder, run(f"nproc={count}", *SETTINGS, f"hydra.run.dir={folder}", script="launch")
        )

    return launch


def results(folder, done):
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("final_state=") == 1
    weights = mx.load(str(folder / "checkpoints" / "step-00000006" / "model.safetensors"))
    return json.loads((folder / "run.json").read_text())["training"], weights


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.fault_injection)])
def test_data_parallel_gives_the_losses_and_weights_of_one_process(launched, single_process, count):
    folder, metrics, weights = launched(count)
    assert read_lock(folder)["machine"]["processes"] == str(count)
    expected_metrics, expected_weights = single_process
    assert metrics["final"]["valid/loss"] == pytest.approx(
        expected_metrics["final"]["valid/loss"], abs=1e-5
    )
    for name, leaf in expected_weights.items():
        np.testing.assert_allclose(np.array(weights[name]), np.array(leaf), atol=1e-4, err_msg=name)


def test_a_host_file_starts_the_processes_that_it_lists(launched, tmp_path):
    file, folder = tmp_path / "hosts.json", tmp_path / "run"
    host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}  # the name for which no ssh is used
    file.write_text(
        json.dumps({"hosts": [host, host], "backend": "ring", "envs": ["MLX_RING_VERBOSE=1"]})
    )
    done = run(f"hostfile={file}", *SETTINGS, f"hydra.run.dir={folder}", script="launch")
    assert "[ring] Rank 1 " in done.stderr  # which the variable asks for
    metrics, weights = results(folder, done)
    assert read_lock(folder)["machine"]["processes"] == "2"
    assert metrics["final"]["valid/loss"] == launched(2)[1]["final"]["valid/loss"]
    for name, leaf in launched(2)[2].items():
        np.testing.assert_array_equal(np.array(weights[name]), np.array(leaf), err_msg=name)


def test_when_a_process_dies_the_others_save_and_exit_with_75(tmp_path):
    forever = tiny_overrides(
        "trainer.max_steps=100000",
        "checkpointing.every_steps=5",
        "trainer.eval_every=100000",
        *CHEAP,
    )
    args = ["trainer.parallel=data", *forever, f"hydra.run.dir={tmp_path}"]
    first, second = start_ring(tmp_path / "hosts.json", *args)
    wait_for(tmp_path / "checkpoints" / "step-00000005", first)
    second.kill()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 75
    assert "process 0 of 2: another process exited" in err
    assert "is saved, continue with resume=auto" in err
    last = max(path.name for path in (tmp_path / "checkpoints").iterdir())
    max_steps = int(last[5:13]) + 5
    resumed = succeed_here(
        *tiny_overrides(f"trainer.max_steps={max_steps}", *CHEAP),
        f"hydra.run.dir={tmp_path}",
        "resume=auto",
    )
    assert f"resumed from {last}" in resumed.stderr


def test_launched_processes_without_trainer_parallel_are_refused(tmp_path):
    for done in run_ring(
        tmp_path / "hosts.json", "trainer.parallel=none", *SETTINGS, f"hydra.run.dir={tmp_path}/run"
    ):
        assert (
            "trainer.parallel=none: expected data or fsdp, this is one of 2 processes"
            in done.stderr
        )
        assert done.returncode == 2


@pytest.mark.parametrize(
    "args",
    [
        ["nproc=zwei"],
        ["nproc=2", "backend=rong"],
        ["nproc=2", "-m", "seed=1,2"],
        ["hosts=/dev/zero"],
    ],
)
def test_an_impossible_launch_is_one_line(args):
    done = run_here(*args, script="launch")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    "content",
    [None, "hosts: a, b", '[["127.0.0.1:x"]]', "(a pipe)"],
    ids=["missing", "not JSON", "no port", "pipe"],
)
def test_an_invalid_host_file_is_one_line(tmp_path, content):
    path = tmp_path / "hosts.json"
    if content == "(a pipe)":
        os.mkfifo(path)
    elif content is not None:
        path.write_text(content)
    environment = {"MLX_RANK": "0", "MLX_HOSTFILE": str(path)}
    done = run("trainer.parallel=data", *SETTINGS, f"hydra.run.dir={tmp_path}/run", **environment)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"MLX_HOSTFILE={path}: expected the host file of a launcher" in done.stderr


def test_rounds_in_several_processes_are_one_run(tmp_path):
    rounds = ["trainer=distill", "trainer.distillation.rounds=2", "trainer.max_steps=2"]
    rounds += ["trainer.eval_every=2"]
    settings = [
        setting
        for setting in SETTINGS
        if setting.split("=")[0] not in ("trainer.max_steps", "trainer.eval_every")
    ]
    project = tmp_path / "project"
    args = ["trainer.parallel=data", *rounds, *settings, f"hydra.run.dir={project}/run"]
    processes = run_ring(tmp_path / "hosts.json", *args)
    assert [done.returncode for done in processes] == [0, 0], processes[0].stderr
    printed = "".join(done.stdout for done in processes)
    assert [line for line in printed.splitlines() if line.startswith("round ")] == [
        "round 1 of 2",
        "round 2 of 2",
    ]
    assert printed.count("final_state=") == 2
    assert len(json.loads((project / "run" / "run.json").read_text())["rounds"]) == 2
    assert sorted(path.name for path in project.iterdir()) == ["run"]


@pytest.mark.fault_injection
@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.0, 4.0, 5.0, 7.0])
def test_a_signal_at_any_instant_of_a_launch_loses_nothing(launched, tmp_path, seconds):
    settings = [*SETTINGS, f"hydra.run.dir={tmp_path}/run", "resume=auto"]
    process = start("nproc=2", *settings, script="launch")
    time.sleep(seconds)
    with suppress(StopIteration, psutil.NoSuchProcess):  # not started yet, or at its end already
        process_of_rank(process, 0).send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    succeed("nproc=2", *settings, script="launch")
    weights = mx.load(str(tmp_path / "run" / "checkpoints" / "step-00000006" / "model.safetensors"))
    for name, expected in launched(2)[2].items():
        np.testing.assert_array_equal(np.array(weights[name]), np.array(expected), err_msg=name)


def test_leaves_are_reduced_in_few_buckets_and_none_is_lost():
    leaves = [(str(i), mx.zeros((size,))) for i, size in enumerate([5, 1 << 23, 7, 1 << 24, 3])]
    groups = bucket_leaves(leaves)
    assert [name for group in groups for name, _ in group] == [name for name, _ in leaves]
    assert [len(group) for group in groups] == [1, 1, 1, 1, 1] or len(groups) < len(leaves)


def test_shards_make_up_the_batch_and_a_process_without_rows_has_no_targets():
    from mlxlab.training.distributed.process_group import ProcessGroup

    batch = Batch(
        np.arange(6).reshape(3, 2).astype(np.int32),
        np.ones((3, 2), np.int32),
        np.arange(3, dtype=np.int32),
        np.ones(3, np.float32),
        np.arange(3),
        {"teacher": np.arange(3)[:, None]},
    )
    shards = []
    for rank in range(4):
        process = ProcessGroup()
        process.rank, process.size = rank, 4  # without a ring: shard needs only these
        shards.append(process.shard(batch))
    assert [shard.example_ids.tolist() for shard in shards] == [[0], [1], [2], [0]]
    assert [float(shard.loss_weights.sum()) for shard in shards] == [1, 1, 1, 0]
    assert shards[1].aux["teacher"].tolist() == [[1]]


def test_a_run_of_several_processes_resumes_from_the_command_line(launched, tmp_path):
    folder = shutil.copytree(launched(2)[0], tmp_path / "run")
    settings = [setting for setting in SETTINGS if not setting.startswith("trainer.max_steps")]
    args = ["trainer.parallel=data", *settings, "trainer.max_steps=8", f"hydra.run.dir={folder}"]
    args += ["resume=auto"]
    resumed = run_ring(tmp_path / "hosts.json", *args)
    assert [done.returncode for done in resumed] == [0, 0], resumed[0].stderr
    assert "resumed from step-00000006" in resumed[0].stderr
    assert json.loads((folder / "run.json").read_text())["training"]["steps"] == 8


def test_a_signal_to_any_process_ends_the_run_as_preempted(tmp_path):
    endless = tiny_overrides(
        "trainer.max_steps=100000",
        "checkpointing.every_steps=5",
        "trainer.eval_every=100000",
        *CHEAP,
    )
    process = start("nproc=2", *endless, f"hydra.run.dir={tmp_path}", script="launch")
    wait_for(tmp_path / "checkpoints" / "step-00000005", process)
    process_of_rank(process, 1).send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert (tmp_path / "STATUS.interrupted").exists()
