"""trainer=optimized in real processes: every family, every callback, killed between the micro-batches of a run."""

import json

import pytest

from mlxlab.record.run_file import read_run
from support.processes import (
    NO_PLOTS,
    final_state,
    killed_and_resumed,
    run,
    succeed,
    tiny_overrides,
)

LEAN = ["trainer=optimized", "trainer.step.compile=never"]
SHORT = tiny_overrides("trainer.max_steps=8", "trainer.eval_every=4", "trainer.log_every=1")
SHORT = [setting for setting in SHORT if setting not in ("tracking=none", *NO_PLOTS)]


@pytest.mark.parametrize(
    ("model", "tracking"),
    [
        ("transformer", "none"),
        pytest.param("bert", "mlflow", marks=pytest.mark.slow),
        pytest.param("cnn_hybrid", "none", marks=pytest.mark.slow),
    ],
)
def test_every_family_and_every_callback_work_with_the_optimized_step(tmp_path, model, tracking):
    args = ["trainer.step.accumulate=3", "trainer.step.activation_checkpointing=true"]
    args += ["trainer.ema_decay=0.9", f"model={model}", f"tracking={tracking}"]
    args += ["callbacks.memory_monitor.every_steps=1", "callbacks.csv.path=metrics.csv"]
    args += ["callbacks.example_losses.every_steps=1", "callbacks.early_stopping.patience=5"]
    args += [f"tracking.uri=sqlite:///{tmp_path}/store.db"] if tracking == "mlflow" else []
    finished = succeed(*SHORT, *LEAN, *args, f"hydra.run.dir={tmp_path}/run")
    assert "Traceback" not in finished.stderr
    assert read_run(tmp_path / "run").training.steps == 8
    assert (tmp_path / "run" / "summary.md").stat().st_size > 0
    head = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    for name in ("data/padding_fraction", "memory/growth_per_step", "train/grad_norm"):
        assert name in head


KILLED = [*tiny_overrides("trainer.max_steps=40"), *LEAN, "trainer.step.accumulate=2"]
KILLED += ["trainer.ema_decay=0.95", "trainer/optimizer=muon"]


def test_accumulation_with_ema_killed_and_resumed_ends_in_the_same_state(tmp_path):
    reference = final_state(run(*KILLED, f"hydra.run.dir={tmp_path}/uninterrupted"))
    assert killed_and_resumed(KILLED, tmp_path / "killed", 15) == reference


@pytest.mark.fault_injection
def test_a_run_with_adaptive_batch_size_resumes_with_its_current_size(tmp_path):
    args = ["trainer.max_steps=12", *tiny_overrides("trainer.max_steps=12")[:-1], *LEAN]
    args += [f"hydra.run.dir={tmp_path}"]
    settings = ("max=32", "interval=4", "cooldown=4", "budget=1000")
    args += [f"callbacks.adaptive_batch.{setting}" for setting in settings]
    succeed(*args)
    succeed(*args[1:], "resume=auto", "trainer.max_steps=16")
    newest = max((tmp_path / "checkpoints").glob("step-*"))
    state = json.loads((newest / "state.json").read_text())
    assert state["progress"]["batch_sizes"] == [[0, 8], [4, 16], [8, 32]]
    assert state["progress"]["samples"] == 4 * 8 + 4 * 16 + 8 * 32
