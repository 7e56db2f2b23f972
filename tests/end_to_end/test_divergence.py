"""Runs whose numbers explode end with exit code 78 and a summary, never with a traceback."""

import pytest

from mlxlab.record.run_file import read_run
from support.processes import run, tiny_overrides


@pytest.mark.parametrize(
    "change", ["trainer.learning_rate=1e30", "trainer.optimizer.weight_decay=1e30"]
)
def test_a_run_without_a_finite_evaluation_exits_with_78_and_says_so(tmp_path, change):
    finished = run(
        *tiny_overrides("trainer.max_steps=3", "trainer.eval_every=3"),
        change,
        f"hydra.run.dir={tmp_path}/run",
    )
    assert "Traceback" not in finished.stderr
    assert finished.returncode == 78, finished.stderr
    assert "No evaluation was finite" in (tmp_path / "run" / "summary.md").read_text()
    assert read_run(tmp_path / "run").status == "failed"


def test_a_run_that_skipped_every_step_fails_with_its_state_saved(tmp_path):
    settings = tiny_overrides("trainer.max_steps=3", "trainer.eval_every=3")
    overflow = ["trainer/loss=weighted", "trainer.loss.class_weights=[1e39,1e39]"]
    for resume in ([], ["resume=auto"]):
        finished = run(*settings, *overflow, f"hydra.run.dir={tmp_path}/run", *resume)
        assert finished.returncode == 78, finished.stderr
        assert "Traceback" not in finished.stderr
        assert (tmp_path / "run" / "STATUS.failed").exists()
        assert (tmp_path / "run" / "checkpoints" / "step-00000003").is_dir()
        assert read_run(tmp_path / "run").training.steps == 3
