"""One run in several processes, over a real ring: the losses and weights of one process, and no hang."""

import functools
import json
import os
import shutil
import signal
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest

from mlxlab.checkpoint.store import load_named
from mlxlab.data.batch import Batch
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.record.run_file import read_run
from mlxlab.training.distributed.process_group import ProcessGroup
from support.models import assert_close, assert_same
from support.processes import (
    final_state,
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
ENDLESS = tiny_overrides("trainer.max_steps=100000", "trainer.eval_every=100000", *CHEAP)
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
        args = [f"nproc={count}", *SETTINGS, f"hydra.run.dir={folder}"]
        return folder, *results(folder, run(*args, script="launch"))

    return launch


def results(folder, done):
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("final_state=") == 1
    return read_run(folder).training.final["valid/loss"], load_named("step-6", folder).weights


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.fault_injection)])
def test_data_parallel_gives_the_losses_and_weights_of_one_process(launched, single_process, count):
    folder, loss, weights = launched(count)
    assert read_lock(folder)["machine"]["processes"] == str(count)
    expected_loss, expected_weights = single_process
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert_close(weights, expected_weights, atol=1e-4)


@pytest.mark.slow
def test_a_host_file_starts_the_processes_that_it_lists(launched, tmp_path):
    file, folder = tmp_path / "hosts.json", tmp_path / "run"
    host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}  # the name for which no ssh is used
    content = {"hosts": [host, host], "backend": "ring", "envs": ["MLX_RING_VERBOSE=1"]}
    file.write_text(json.dumps(content))
    done = run(f"hostfile={file}", *SETTINGS, f"hydra.run.dir={folder}", script="launch")
    assert "[ring] Rank 1 " in done.stderr  # which the variable asks for
    loss, weights = results(folder, done)
    assert read_lock(folder)["machine"]["processes"] == "2"
    assert loss == launched(2)[1]
    assert_same(weights, launched(2)[2])


def test_when_a_process_dies_the_others_save_and_exit_with_75(tmp_path):
    args = ["trainer.parallel=data", *ENDLESS, f"hydra.run.dir={tmp_path}"]
    first, second = start_ring(tmp_path / "hosts.json", *args)
    wait_for(tmp_path / "checkpoints" / "step-00000005", first)
    second.kill()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 75
    assert "process 0 of 2: another process exited" in err
    last = max(path.name for path in (tmp_path / "checkpoints").iterdir())
    settings = tiny_overrides(f"trainer.max_steps={int(last[5:13]) + 5}", *CHEAP)
    resumed = succeed_here(*settings, f"hydra.run.dir={tmp_path}", "resume=auto")
    assert f"resumed from {last}" in resumed.stderr


def test_launched_processes_without_trainer_parallel_are_refused(tmp_path):
    args = ["trainer.parallel=none", *SETTINGS, f"hydra.run.dir={tmp_path}/run"]
    for done in run_ring(tmp_path / "hosts.json", *args):
        assert done.returncode == 2
        assert "trainer.parallel=none: expected data or fsdp" in done.stderr


@pytest.mark.parametrize("content", ["missing", "hosts: a, b", '[["127.0.0.1:x"]]', "pipe"])
def test_an_invalid_host_file_is_one_line(tmp_path, content):
    path = tmp_path / "hosts.json"
    if content == "pipe":
        os.mkfifo(path)
    elif content != "missing":
        path.write_text(content)
    args = ["trainer.parallel=data", *SETTINGS, f"hydra.run.dir={tmp_path}/run"]
    done = run(*args, MLX_RANK="0", MLX_HOSTFILE=str(path))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"MLX_HOSTFILE={path}: expected the host file of a launcher" in done.stderr


@pytest.mark.slow
def test_rounds_in_several_processes_are_one_run(tmp_path):
    rounds = ["trainer=distill", "trainer.distillation.rounds=2", "trainer.max_steps=2"]
    project = tmp_path / "project"
    args = [*SETTINGS, *rounds, "trainer.eval_every=2", "trainer.parallel=data"]
    args += [f"hydra.run.dir={project}/run"]
    processes = run_ring(tmp_path / "hosts.json", *args)
    assert [done.returncode for done in processes] == [0, 0], processes[0].stderr
    assert "".join(done.stdout for done in processes).count("final_state=") == 2
    assert len(read_run(project / "run").rounds) == 2
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
    assert_same(load_named("step-6", tmp_path / "run").weights, launched(2)[2])


def test_shards_make_up_the_batch_and_a_process_without_rows_has_no_targets():
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
    args = [*SETTINGS, "trainer.parallel=data", "trainer.max_steps=8", f"hydra.run.dir={folder}"]
    resumed = run_ring(tmp_path / "hosts.json", *args, "resume=auto")
    assert [done.returncode for done in resumed] == [0, 0], resumed[0].stderr
    assert "resumed from step-00000006" in resumed[0].stderr
    assert read_run(folder).training.steps == 8


FSDP = ["nproc=2", "trainer.parallel=fsdp"]
FULL = pytest.mark.fault_injection


@pytest.mark.parametrize(
    "args", [["nproc=2"], pytest.param(FSDP, marks=FULL)], ids=["data", "fsdp"]
)
def test_a_signal_to_any_process_ends_the_run_as_preempted(tmp_path, args):
    process = start(*args, *ENDLESS, f"hydra.run.dir={tmp_path}", script="launch")
    wait_for(tmp_path / "checkpoints" / "step-00000005", process)
    process_of_rank(process, 1).send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert (tmp_path / "STATUS.interrupted").exists()


@pytest.mark.fault_injection
@pytest.mark.parametrize("rank", [0, 1])
def test_when_a_process_is_killed_the_other_exits_with_75_and_a_resume_continues(tmp_path, rank):
    process = start(*FSDP, *ENDLESS, f"hydra.run.dir={tmp_path}", script="launch")
    wait_for(tmp_path / "checkpoints" / "step-00000010", process)
    process_of_rank(process, rank).send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    if rank == 1:
        assert process.returncode == 75, out + err
        assert "process 0 of 2: another process exited" in out + err
    last = max(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    settings = tiny_overrides(f"trainer.max_steps={int(last[5:13]) + 5}", *CHEAP)
    resumed = succeed(*FSDP, *settings, f"hydra.run.dir={tmp_path}", "resume=auto", script="launch")
    assert f"resumed from {last}" in resumed.stderr


@pytest.mark.fault_injection
def test_a_run_that_was_killed_and_resumed_ends_bitwise_as_without(tmp_path):
    settings = [*FSDP, *tiny_overrides("trainer.max_steps=30", "trainer.eval_every=15", *CHEAP)]
    whole = run(*settings, f"hydra.run.dir={tmp_path / 'whole'}", script="launch")
    process = start(*settings, f"hydra.run.dir={tmp_path / 'killed'}", script="launch")
    wait_for(tmp_path / "killed" / "checkpoints" / "step-00000005", process)
    process_of_rank(process, 1).send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    resumed = run(*settings, f"hydra.run.dir={tmp_path / 'killed'}", "resume=auto", script="launch")
    assert final_state(resumed) == final_state(whole)


@pytest.mark.fault_injection
@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer=distill", "trainer.distillation.rounds=2"],
        ["model/adapter=lora", "model.adapter.rank=2"],
        ["trainer.step.max_grad_norm=null", "trainer/optimizer=lion"],
        ["trainer=optimized", "trainer.step.dtype=bfloat16", "trainer.step.allow_slow_dtype=true"],
        ["callbacks.adaptive_batch.max=16", "callbacks.adaptive_batch.interval=2"],
    ],
    ids=["rounds", "lora", "lion", "bfloat16", "adaptive_batch"],
)
def test_other_ways_of_training_work(tmp_path, overrides):
    succeed(*FSDP, *SETTINGS, *overrides, f"hydra.run.dir={tmp_path}/run", script="launch")
    succeed_here(f"run={tmp_path}/run", script="evaluate")
