"""Distillation in real processes: teachers by path, what is refused, rounds that are killed and resumed, ensembles."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlxlab.commands.train import main
from mlxlab.data.titanic_source import resolve
from mlxlab.inference.predict import predict
from mlxlab.inference.restore import restore
from mlxlab.training.device import to_device
from processes import but, final_state, run, start, wait_for

SHORT = but(
    "trainer.max_steps=9", "trainer.eval_every=9", "callbacks.checkpointing.every=3", "data.templates=[brief]", "seed=1"
)
STUDENT = [*SHORT, "trainer=distill"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    finished = run(*SHORT, f"hydra.run.dir={folder}")
    assert finished.returncode == 0, finished.stderr
    return folder


def states(finished) -> list[str]:
    return [line for line in finished.stdout.splitlines() if line.startswith("final_state=")]


def test_a_student_of_another_family_learns_from_a_run_and_keeps_what_it_said(teacher, tmp_path):
    words = [*STUDENT, "model=cnn_hybrid", "model.kernels=[2]", "model.filters=4", f"trainer.teachers=[{teacher}]"]
    words += ["trainer.teacher_cache={top_k: 1, dtype: float16}", "trainer.loss.alpha=0.25"]
    first = run(*words, f"hydra.run.dir={tmp_path}/a")
    assert first.returncode == 0, first.stderr
    assert f"teacher: {teacher}" in first.stderr
    assert "teachers unchanged" in first.stderr
    assert "0 rows found" not in first.stderr
    second = run(*words, f"hydra.run.dir={tmp_path}/b", "trainer.log_every=3")
    assert ", 0 asked" in second.stderr
    assert final_state(second) == final_state(first)
    curve = json.loads((tmp_path / "b" / "checkpoints" / "step-00000009" / "state.json").read_text())["curve"]
    assert {"train/ce", "train/kl"} <= dict(curve)[3].keys()
    assert (tmp_path / "a" / "restore" / "tokenizer.json").read_bytes() == (
        teacher / "restore" / "tokenizer.json"
    ).read_bytes()


@pytest.mark.parametrize(
    ("teachers", "more", "code", "said"),
    [
        ("nowhere", [], 66, "nowhere"),
        ("models:/titanic/1", [], 2, "give the run folder"),
        ("{}", ["trainer.teacher_weights=[1, 2]"], 2, "2 for 1 teachers"),
        ("{}", ["trainer.teacher_cache={top: 3}"], 2, "top;"),
        ("{}", ["trainer.loss.match=[{student: trunk, teacher: trunk.layer}]"], 2, "there is no layer trunk.layer"),
        ("{}", ["trainer.vocabulary=subset", "data.tokenizer.vocab_size=300"], 77, "another tokenizer"),
    ],
)
def test_what_cannot_teach_is_one_line(teacher, tmp_path, capsys, teachers, more, code, said):
    given = main([*STUDENT, f"trainer.teachers=[{teachers.format(teacher)}]", *more, f"hydra.run.dir={tmp_path}"])
    error = capsys.readouterr().err
    assert given == code, error
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error


@pytest.mark.parametrize("role", ["teacher", pytest.param("residual", marks=pytest.mark.torture)])
def test_three_rounds_killed_in_the_second_and_resumed_are_bitwise_those_that_were_not(teacher, tmp_path, role):
    words = [*STUDENT, f"trainer.teachers=[{teacher}]", "trainer.rounds=3", f"trainer.role={role}"]
    whole = run(*words, f"hydra.run.dir={tmp_path}/whole")
    assert whole.returncode == 0, whole.stderr
    assert len(set(states(whole))) == 3
    again = [*words, f"hydra.run.dir={tmp_path}/killed", "resume=auto"]
    process = start(*again)
    wait_for(tmp_path / "killed" / "rounds" / "2" / "checkpoints" / "step-00000003", process)
    process.kill()
    process.communicate()
    assert len(json.loads((tmp_path / "killed" / "rounds.json").read_text())["done"]) == 1
    resumed = run(*again)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from step-" in resumed.stderr
    assert states(resumed) == states(whole)[1:], "the first round is not repeated, the second not skipped"
    done = [json.loads((tmp_path / name / "rounds.json").read_text())["done"] for name in ("whole", "killed")]
    assert done[0] == done[1]
    assert {"teacher", "student", "ensemble", "member 1", "member 2", "member 3"} == done[0][2].keys()
    check_ensemble(tmp_path / "whole", done[0][2])


def check_ensemble(folder: Path, measured: dict) -> None:
    """The saved ensemble predicts by the mean of its members' logits."""
    together = restore(folder)
    rows = resolve("synthetic", folder).train[:20]
    alone = [
        restore(folder / "rounds" / str(n), folder / "rounds" / str(n) / "checkpoints" / "last") for n in (1, 2, 3)
    ]
    batch = together.encoder.encode_rows(rows)
    arrays = to_device(batch)[:2]
    mean = np.mean([np.array(one.model(*arrays)) for one in alone], axis=0)
    np.testing.assert_allclose(np.array(together.model(*arrays)), mean, rtol=1e-4, atol=1e-6)
    p = predict(together, rows)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert measured["ensemble"]["parameters"] == 3 * measured["student"]["parameters"]
