"""Settings that cannot work are refused before training, and leave no run folder behind."""

import pytest

from support.processes import run_here, tiny_overrides


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        ("trainer/loss=weighted trainer.loss.class_weights=[1,2,3]", 2, "expected 2 weights, one"),
        ("trainer/loss=mse", 2, "trainer.loss: expected a loss for the task classification (auto"),
        ("model.position_embedding=rope model.num_heads=32", 2, "even head dimension"),
        ("model.pretrained=nowhere/at/all", 66, "no such folder"),
        ("data.source=nowhere.csv", 66, "nowhere.csv"),
        ("callbacks.csv.path=../../x.csv", 77, "outside the run folder"),
        ("trainer.parallel=data", 2, "expected a process of `launch nproc=...`"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_without_a_run_folder(
    tmp_path, overrides, code, message
):
    settings = tiny_overrides(*overrides.split(), "trainer.epochs=1")
    finished = run_here(*settings, f"hydra.run.dir={tmp_path / 'run'}")
    assert (finished.returncode, finished.stdout) == (code, ""), finished.stderr
    assert message in finished.stderr
    # On a busy machine, a line says that reading the data takes long.
    assert len(finished.stderr.removeprefix("reading the data ...\n").splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", ["x", "-1", "\u00b2"])
def test_a_launcher_rank_that_is_no_number_is_refused(tmp_path, rank, monkeypatch):
    monkeypatch.setenv("MLX_RANK", rank)
    finished = run_here(*tiny_overrides("trainer.max_steps=2"), f"hydra.run.dir={tmp_path / 'run'}")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert f"MLX_RANK={rank}: expected the rank of this process" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
