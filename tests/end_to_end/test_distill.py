"""Distillation end to end: teachers by path, refusals, rounds that are killed and resumed, ensembles."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from mlxlab.checkpoint.store import load_named
from mlxlab.cli.train import main
from mlxlab.inference.predict import predict_table
from mlxlab.inference.restore import restore_model
from mlxlab.record.run_file import read_run
from mlxlab.training.device_batch import to_device
from support.processes import start, succeed, tiny_overrides, wait_for
from support.titanic import real_rows, table_of

SHORT = tiny_overrides("trainer.max_steps=9", "trainer.eval_every=9", "checkpointing.every_steps=3")
SHORT += ["data.templates=[brief]", "seed=1"]
STUDENT = [*SHORT, "trainer=distill"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    succeed(*SHORT, f"hydra.run.dir={folder}")
    return folder


def states(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("final_state=")]


def test_a_student_of_another_family_learns_from_a_run_and_caches_its_soft_targets(
    teacher, tmp_path, capsys
):
    args = [*STUDENT, "model=cnn_hybrid", "model.kernel_sizes=[2]", "model.num_filters=4"]
    args += ["trainer.distillation.teacher_cache={top_k: 1, dtype: float16}"]
    args += [f"trainer.teachers=[{teacher}]", "trainer.loss.alpha=0.25"]
    outputs = []
    for name, log_every in (("a", 10), ("b", 3)):
        own = [f"hydra.run.dir={tmp_path}/{name}", f"trainer.log_every={log_every}"]
        assert main([*args, *own]) == 0
        outputs.append(capsys.readouterr())
    assert f"teacher: {teacher}" in outputs[0].err
    assert ", 0 computed" in outputs[1].err
    assert states(outputs[0].out) == states(outputs[1].out)
    curve = dict(load_named("last", tmp_path / "b").state["history"].curve)
    assert {"train/cross_entropy", "train/kl"} <= curve[3].keys()
    models = read_run(tmp_path / "b").evaluation.models
    assert models["teacher"]["accuracy"] == read_run(teacher).training.final["valid/accuracy"]
    student, own = (folder / "inference" / "tokenizer.json" for folder in (tmp_path / "a", teacher))
    assert student.read_bytes() == own.read_bytes()


@pytest.mark.parametrize(
    ("teachers", "override", "code", "message"),
    [
        ("nowhere", "log_every=10", 66, "nowhere"),
        ("", "distillation.rounds=0", 2, "trainer.distillation.members, which is empty"),
        ("{}", "distillation.teacher_weights=[1, 2]", 2, "expected 1 weights, one per teacher"),
        ("{}", "distillation.teacher_cache={top: 3}", 2, "teacher_cache.top=3: unknown key"),
    ],
)
def test_an_impossible_teacher_is_one_line(
    teacher, tmp_path, capsys, teachers, override, code, message
):
    names = f"trainer.teachers=[{teachers.format(teacher)}]"
    assert main([*STUDENT, names, f"trainer.{override}", f"hydra.run.dir={tmp_path}"]) == code
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


def test_other_teachers_on_resume_are_refused_unless_the_options_name_them_too(
    teacher, tmp_path, capsys
):
    args = [*STUDENT, f"trainer.teachers=[{teacher}]", f"hydra.run.dir={tmp_path}"]
    assert main(args) == 0
    changed = f"trainer.teachers=[{teacher}/checkpoints/last]"
    assert main([*STUDENT, changed, f"hydra.run.dir={tmp_path}", "resume=auto"]) == 2
    assert "expected the teachers of trainer.teachers" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("loss", ["distill", "distill_routed", "distill_sum"])
def test_a_distillation_loss_is_refused_without_trainer_distill(tmp_path, capsys, loss):
    assert main([*SHORT, f"trainer/loss={loss}", f"hydra.run.dir={tmp_path}/run"]) == 2
    assert "trainer=distill" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_may_have_seen_the_validation_rows_is_reported(teacher, tmp_path, capsys):
    for share, warned in ((0.2, False), (0.3, True)):
        args = [*STUDENT, f"trainer.teachers=[{teacher}]", f"data.valid_fraction={share}"]
        assert main([*args, f"hydra.run.dir={tmp_path}/{share}"]) == 0
        assert ("was validated on other data" in capsys.readouterr().err) == warned


@pytest.mark.fault_injection
@pytest.mark.parametrize(
    ("role", "end"), [("teacher", signal.SIGINT), ("residual", signal.SIGKILL)]
)
def test_three_rounds_ended_in_the_second_and_resumed_equal_uninterrupted_ones(
    teacher, tmp_path, capsys, role, end
):
    """Killed ones by the command that began them, interrupted ones by the command that they print."""
    args = [*STUDENT, f"trainer.teachers=[{teacher}]", "trainer.distillation.rounds=3"]
    args += [f"trainer.distillation.previous_students={role}"]
    folder = f"hydra.run.dir={tmp_path}/killed"
    process = start(*args, folder, "resume=auto")
    wait_for(tmp_path / "killed" / "rounds" / "2" / "checkpoints" / "step-00000003", process)
    process.send_signal(end)
    printed = process.communicate()[1].splitlines()[-1].partition("; continue it with: ")[2].split()
    assert len(read_run(tmp_path / "killed").rounds) == 1
    assert printed[-2:] == ([folder, "resume=auto"] if end == signal.SIGINT else [])
    assert main(printed[-2:] or [*args, folder, "resume=auto"]) == 0
    resumed = capsys.readouterr()
    assert "resumed from step-" in resumed.err
    assert main([*args, f"hydra.run.dir={tmp_path}/uninterrupted"]) == 0
    uninterrupted = states(capsys.readouterr().out)
    assert len(set(uninterrupted)) == 3
    # The first round is not repeated, the second not skipped.
    assert states(resumed.out) == uninterrupted[1:]
    done = [read_run(tmp_path / name).rounds for name in ("uninterrupted", "killed")]
    assert done[0] == done[1]
    members = {"member 1", "member 2", "member 3"}
    assert {"teacher", "student", "ensemble", *members} == done[0][2].keys()
    assert_predicts_by_the_mean(tmp_path / "uninterrupted", done[0][2])


SHRUNK = ["model.num_layers=1", "model.hidden_size=32", "model.num_heads=2"]
SHRUNK += ["model.intermediate_size=32", "trainer.max_steps=2"]


def test_stories_distilled_trains_a_student_with_the_teachers_tokenizer(tmp_path, capsys):
    text = tmp_path / "text.jsonl"
    lines = [{"text": f"Line {n} says that {n * n} is a square. " * 4} for n in range(200)]
    text.write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = ["experiment=stories_distilled", f"data.source={text}", "data.valid_fraction=0.2"]
    args += ["tracking=none", *SHRUNK, "trainer.eval_batches=1"]
    assert main([*args, "data.tokenizer.vocab_size=300", f"hydra.run.dir={tmp_path}/teacher"]) == 0
    student = [*args, f"trainer.teachers=[{tmp_path}/teacher]", "data.tokenizer.vocab_size=280"]
    cache = "trainer.distillation.teacher_cache={top_k: 20}"
    assert main([*student, cache, "seed=3", f"hydra.run.dir={tmp_path}/student"]) == 0
    log = capsys.readouterr().err
    assert "top 20 of 300" in log
    assert "validated on other data" not in log, "the seed does not change the validation split"
    subset = "trainer.distillation.vocab_mapping=subset"  # The first 280 of 300 tokens are equal.
    assert main([*student, subset, f"hydra.run.dir={tmp_path}/other"]) == 0
    assert main([*student, "model=bert", f"hydra.run.dir={tmp_path}/masked"]) == 77
    assert "expected masked language modelling" in capsys.readouterr().err


def assert_predicts_by_the_mean(folder: Path, measured: dict) -> None:
    """The saved ensemble predicts by the mean of its members' logits."""
    ensemble = restore_model(folder)
    table = table_of(real_rows("synthetic.csv")[:20])
    members = [restore_model(folder / "rounds" / str(n), "last") for n in (1, 2, 3)]
    batch = ensemble.encoder.encode_rows(table)
    arrays = to_device(batch)[:2]
    mean = np.mean([np.array(member.model(*arrays)) for member in members], axis=0)
    np.testing.assert_allclose(np.array(ensemble.model(*arrays)), mean, rtol=1e-4, atol=1e-6)
    p = predict_table(ensemble, table).values
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert measured["ensemble"]["parameters"] == 3 * measured["student"]["parameters"]
