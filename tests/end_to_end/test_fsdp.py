"""Runs with sharded weights from the command line, in two real processes."""

import json
import signal

import mlx.core as mx
import numpy as np
import pytest

from support.processes import (
    final_state,
    process_of_rank,
    run,
    start,
    succeed,
    succeed_here,
    tiny_overrides,
    wait_for,
)

CHEAP = ["data.templates=[basic]", "data.augment.copies=1", "model.dropout=0"]
SETTINGS = tiny_overrides("trainer.max_steps=6", "trainer.eval_every=3", *CHEAP)
FSDP = ["nproc=2", "trainer.parallel=fsdp"]


def weights(folder, step=6):
    return mx.load(str(folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors"))


@pytest.mark.fault_injection
@pytest.mark.parametrize("model", ["bert", "cnn_hybrid", "transformer"])
def test_a_run_ends_as_that_of_one_process_with_the_same_metrics(tmp_path, model):
    settings = [*SETTINGS, f"model={model}", "trainer=optimized"]
    settings += ["model.branch_dropout=0"] if model == "cnn_hybrid" else []
    for name, command in {"one": [], "two": FSDP}.items():
        done = succeed(
            *command,
            *settings,
            f"hydra.run.dir={tmp_path / name}",
            script="launch" if command else "train",
        )
        assert done.stdout.count("final_state=") == 1
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two")]
    one, two = (record["training"]["final"]["valid/loss"] for record in records)
    assert two == pytest.approx(one, abs=1e-5)
    assert records[0]["model"] == records[1]["model"]
    expected = weights(tmp_path / "one")
    for name, leaf in weights(tmp_path / "two").items():
        np.testing.assert_allclose(
            np.array(leaf), np.array(expected[name]), atol=1e-4, err_msg=name
        )


@pytest.mark.fault_injection
@pytest.mark.parametrize("rank", [0, 1])
def test_when_a_process_is_killed_the_other_exits_with_75_and_a_resume_continues(tmp_path, rank):
    endless = tiny_overrides(
        "trainer.max_steps=100000",
        "checkpointing.every_steps=5",
        "trainer.eval_every=100000",
        *CHEAP,
    )
    process = start(*FSDP, *endless, f"hydra.run.dir={tmp_path}", script="launch")
    wait_for(tmp_path / "checkpoints" / "step-00000010", process)
    process_of_rank(process, rank).send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    if rank == 1:
        assert process.returncode == 75, out + err
        assert "process 0 of 2: another process exited" in out + err
        assert " with resume=auto" in out + err
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
def test_a_signal_to_one_process_saves_and_ends_both(tmp_path):
    endless = tiny_overrides("trainer.max_steps=100000", "checkpointing.every_steps=100000", *CHEAP)
    process = start(*FSDP, *endless, f"hydra.run.dir={tmp_path}", script="launch")
    wait_for(tmp_path / "checkpoints" / "step-00000020", process)  # the first evaluation
    process_of_rank(process, 1).send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert (tmp_path / "STATUS.interrupted").exists()


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
