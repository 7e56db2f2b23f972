"""Numbers that are not finite: wherever they come from, they reach no checkpoint."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.store import load_checkpoint
from support.fault_injection.harness import Attempt, committed, read_metrics, settings, tracked

SLOW = [pytest.param(w, marks=pytest.mark.fault_injection) for w in ("data", "loss", "optimizer")]
EVERYWHERE = ["gradient", *SLOW]


def poisoned(shared_server, tmp_path, what: str, last: int) -> Attempt:
    limits = ("trainer.max_steps=20", "trainer.max_nonfinite_steps=3", "checkpointing.keep=99")
    argv = settings("bert", *limits, *tracked(tmp_path / "project"))
    poison = {"what": what, "first": 7, "last": last}
    done = shared_server.run([*argv, f"hydra.run.dir={tmp_path}/run"], syncer=False, poison=poison)
    assert "Traceback" not in done.err, done.err
    assert_checkpoints_are_finite(tmp_path / "run")
    return done


def assert_checkpoints_are_finite(folder) -> None:
    paths = committed(folder)
    assert paths
    for path in paths:
        loaded = load_checkpoint(path)
        for name, array in (*loaded.weights.items(), *loaded.optimizer.items()):
            if mx.issubdtype(array.dtype, mx.floating):
                assert np.isfinite(np.array(array)).all(), f"{name} in {path.name}"


@pytest.mark.parametrize("what", EVERYWHERE)
def test_one_nonfinite_step_costs_one_step(shared_server, tmp_path, what):
    done = poisoned(shared_server, tmp_path, what, last=7)
    assert done.returncode == 0, done.err
    assert committed(tmp_path / "run")[-1].name == "step-00000020"
    metrics = read_metrics(tmp_path / "run" / "journal.jsonl")
    logged = {step for name, step in metrics if name == "train/loss"}
    if what == "optimizer":  # the next three are skipped, then the weights are those of step 6
        assert "step 10: not finite; continuing with the weights of step 6" in done.err
        assert logged >= {*range(1, 21)} - {10}
    else:
        assert logged == {*range(1, 21)}
        assert metrics["train/nonfinite_steps", 20] == 1


@pytest.mark.parametrize("what", EVERYWHERE)
def test_persistent_nonfinite_steps_exit_with_78_after_the_rollbacks(shared_server, tmp_path, what):
    done = poisoned(shared_server, tmp_path, what, last=9999)
    assert done.returncode == 78, done.err
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["end"] for record in records if "end" in record] == ["FAILED"]
