"""Laws of rounds: what earlier students are to the next, where a student starts, what is reported."""

import json
import shutil
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.special import log_softmax

from mlxlab.checkpoint.names import resumes_rounds
from mlxlab.cli.train import main
from mlxlab.config.check import read_stored_config
from mlxlab.distillation.options import NO_DISTILLATION
from mlxlab.inference.restore import restore_model
from mlxlab.models.ensemble import Ensemble
from mlxlab.past_runs.collect_record import read_info
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.record.run_file import read_run, write_run
from mlxlab.run.resume.start import Start
from mlxlab.run.rounds import members
from mlxlab.run.session import build_session
from mlxlab.tracking import queue
from mlxlab.training.device_batch import to_device
from mlxlab.views.commands import next_commands
from support.fault_injection.harness import read_metrics
from support.models import weights_of
from support.processes import NO_PLOTS

SETTINGS = ["trainer=distill", "tracking=none", "data.source=synthetic", "data.templates=[brief]"]
SETTINGS += ["data.prefetch=0", "data.batch_size=16", "model.num_layers=1", "model.hidden_size=16"]
SETTINGS += ["model.num_heads=2", "model.intermediate_size=16", "model.dropout=0"]
SETTINGS += ["trainer.max_steps=2", "callbacks.progress_bar.bar=never", *NO_PLOTS]

REFUSED = (
    "resume={}: rounds of distillation continue where they stopped, in their own folder;"
    " expected resume=auto\n"
)


def train_run(folder, *overrides):
    assert main([*SETTINGS, *overrides, f"hydra.run.dir={folder}"]) == 0
    return folder


def last_weights(folder):
    return weights_of(restore_model(folder, "last").model)


def logged(folder, step):
    """The metrics that a run logged at a step."""
    state = json.loads((folder / "checkpoints" / "step-00000002" / "state.json").read_text())
    return dict(state["history"]["curve"])[step]


def max_abs_difference(a, b) -> float:
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


@pytest.fixture(scope="module", params=["teacher", "residual"])
def two_rounds(request, tmp_path_factory):
    """A run of two rounds, and what the first student is to the second."""
    folder = tmp_path_factory.mktemp(request.param)
    options = ["trainer.distillation.rounds=2", "trainer.log_every=1"]
    options += [f"trainer.distillation.previous_students={request.param}"]
    return train_run(folder, *options), request.param


@pytest.mark.fault_injection
def test_a_student_starts_from_new_weights_or_from_those_of_the_previous_one(tmp_path):
    difference = {}
    for option in ("previous_students=independent", "round_init=previous"):
        options = ["trainer.distillation.rounds=2", f"trainer.distillation.{option}"]
        folder = train_run(
            tmp_path / option.partition("=")[2], *options, "trainer.learning_rate=1e-9"
        )
        weights = [last_weights(folder / "rounds" / name) for name in "12"]
        difference[option] = max_abs_difference(*weights)
    assert difference["previous_students=independent"] > 1e-2
    assert difference["round_init=previous"] < 1e-6


def test_the_first_loss_of_round_2_is_that_of_a_student_of_the_first_or_of_its_residual(
    two_rounds, tmp_path
):
    folder, previous_students = two_rounds
    config = read_stored_config(folder / "rounds" / "2" / "inference" / "config.yaml")
    session = build_session(Start(config), tmp_path)
    batch = next(iter(session.data.train))
    tokens, mask = to_device(batch)[:2]
    member = restore_model(folder / "rounds" / "1", "last").model
    student, first = (
        np.array(model(tokens, mask), np.float64) for model in (session.model, member)
    )
    T, rows = 3.0, np.arange(len(batch.targets))
    if previous_students == "residual":
        values = -log_softmax((student + first) / 2, axis=-1)[rows, batch.targets]
    else:
        p, q = log_softmax(first / T, axis=-1), log_softmax(student / T, axis=-1)
        kl = (np.exp(p) * (p - q)).sum(axis=-1)
        values = 0.5 * -log_softmax(student, axis=-1)[rows, batch.targets] + 0.5 * T**2 * kl
    assert logged(folder / "rounds" / "2", step=1)["train/loss"] == pytest.approx(
        values.mean(), rel=1e-5
    )


def test_the_command_that_info_prints_continues_rounds_as_the_one_that_began_them(tmp_path, capsys):
    options = ["trainer.distillation.rounds=2", "name=students", "trainer.loss.alpha=0.25"]
    options += ["seed=3"]
    folder = train_run(tmp_path / "run", *options)
    whole = [read_run(each) for each in (folder, folder / "rounds" / "2")]
    weights = last_weights(folder / "rounds" / "2")
    shutil.rmtree(folder / "rounds" / "2")
    write_run(folder, replace(whole[0], status="interrupted", rounds=whole[0].rounds[:1]))
    command = next_commands(read_info(folder).view)["resume"]
    assert command == f"mlxlab train hydra.run.dir={folder} resume=auto"
    assert main(command.split()[2:]) == 0
    assert "round 2 of 2" in capsys.readouterr().out
    assert max_abs_difference(last_weights(folder / "rounds" / "2"), weights) == 0
    assert read_run(folder).rounds == whole[0].rounds
    for before, each in zip(whole, (folder, folder / "rounds" / "2"), strict=True):
        after = read_run(each)
        assert after.training.final_state == before.training.final_state
        recorded = after.command.overrides
        assert [text for text in recorded if text != "resume=auto"] == before.command.overrides
        for name in ("name", "seed", "command.choices", "command.first"):
            assert attrgetter(name)(after) == attrgetter(name)(before)
    assert main([f"hydra.run.dir={folder}", "resume=auto", "trainer=simple"]) == 2
    assert capsys.readouterr().err.endswith(
        f"expected trainer=distill, {folder} holds rounds of distillation\n"
    )


@pytest.mark.parametrize(
    ("resume", "continues"),
    [(None, False), ("auto", True), ("last", True), ("{}", True), ("{}/rounds/1", False)],
)
def test_rounds_continue_in_their_own_folder_only(two_rounds, resume, continues):
    folder, _ = two_rounds
    assert resumes_rounds(resume and resume.format(folder), folder) is continues
    assert not resumes_rounds(resume and resume.format(folder), folder / "rounds" / "1")


def test_rounds_start_from_no_checkpoint(two_rounds, tmp_path, capsys):
    folder, _ = two_rounds
    before = read_run(folder).rounds
    for resume in ("best", "step-2", f"{folder}/best"):
        assert main([f"hydra.run.dir={folder}", f"resume={resume}"]) == 2
        assert capsys.readouterr().err.endswith(REFUSED.format(resume))
    assert read_run(folder).rounds == before
    for resume in (str(folder), f"{folder}/rounds/1", "last"):
        settings = [*SETTINGS, "trainer.distillation.rounds=2", f"hydra.run.dir={tmp_path}/new"]
        settings += [f"resume={resume}"]
        assert main(settings) == 2
        assert capsys.readouterr().err.endswith(REFUSED.format(resume))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "code"), [(None, 76), ("{", 65)])
def test_rounds_without_their_record_are_refused_instead_of_training_another_experiment(
    two_rounds, tmp_path, capsys, content, code
):
    folder = shutil.copytree(two_rounds[0], tmp_path / "run")
    (folder / "run.json").unlink()
    if content:
        (folder / "run.json").write_text(content)
    pattern = "**/*" if code == 76 else "rounds/**/*"
    before = sorted(folder.glob(pattern))
    for typed in ([], ["trainer.learning_rate=0.1"]):
        assert main([f"hydra.run.dir={folder}", "resume=auto", *typed]) == code
        assert "run.json" in capsys.readouterr().err.splitlines()[-1]
    assert sorted(folder.glob(pattern)) == before


def test_a_new_run_moves_earlier_rounds_with_their_ensemble(two_rounds, tmp_path):
    folder = shutil.copytree(two_rounds[0], tmp_path / "used")
    expected = weights_of(restore_model(folder).model)
    train_run(folder, "trainer.distillation.rounds=1", "trainer.teachers=[]")
    [earlier] = folder.glob("earlier-*")
    assert max_abs_difference(weights_of(restore_model(earlier).model), expected) == 0
    assert not (folder / "ensemble.json").exists()
    assert restore_model(folder).checkpoint.run_dir == folder


def test_the_model_cannot_change_between_rounds(two_rounds, capsys):
    folder, _ = two_rounds
    settings = [setting for setting in SETTINGS if not setting.startswith("model.num_layers")]
    changed = [*settings, "model.num_layers=2", "trainer.distillation.rounds=3", "resume=auto"]
    assert main([*changed, f"hydra.run.dir={folder}"]) == 2
    assert capsys.readouterr().err.startswith(
        "model.num_layers: cannot change in a run of several rounds"
    )


def test_the_record_of_rounds_has_their_task_steps_and_ensemble(two_rounds):
    folder, _ = two_rounds
    info = read_info(folder)
    record = info.view.record
    first, last = (read_run(folder / "rounds" / number) for number in "12")
    assert record.data == last.data
    assert record.training.steps == record.training.best_step == 4
    assert record.training.batches_per_epoch == first.training.batches_per_epoch
    ensemble = record.rounds[1]["ensemble"]
    [result] = record.evaluation.results
    assert result.rows == last.evaluation.results[0].rows
    assert result.metrics["loss"] == ensemble["loss"] == record.training.best
    assert result.baselines == last.evaluation.results[0].baselines
    assert f"{ensemble['loss']:.4f}" in info.as_text()
    for name in "12":
        assert (folder / "rounds" / name / "STATUS.finished").exists()
        config = OmegaConf.load(folder / "rounds" / name / "inference" / "config.yaml")
        assert len(config.trainer.distillation.members) == int(name) - 1


def test_metrics_of_a_round_that_is_evaluated_again_on_resume_are_recorded_once(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(queue, "start_uploading", lambda _address: False)
    store = [f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", "tracking.wait=0"]
    store += ["tracking.log_models=false"]
    settings = [setting for setting in SETTINGS if not setting.startswith("tracking")]
    folder = tmp_path / "run"
    args = [*settings, "tracking=mlflow", *store, "trainer.distillation.rounds=2"]
    args += [f"hydra.run.dir={folder}"]
    assert main(args) == 0
    record = read_run(folder)
    del record.rounds[-1]  # as if killed between the metrics and the record
    write_run(folder, record)
    assert main([*args, "resume=auto"]) == 0
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    points = read_metrics(folder / "journal.jsonl")  # each once
    assert {step for _, step in points} == {1, 2}
    assert {record["start"]["uid"] for record in records if "start" in record} == {
        read_run(folder).id
    }


def test_zero_rounds_join_students_of_other_runs_to_an_ensemble_which_can_teach(tmp_path):
    runs = [
        train_run(tmp_path / name, f"trainer.learning_rate={rate}", "trainer.teachers=[]")
        for name, rate in (("a", "1e-3"), ("b", "1e-2"))
    ]
    paths = ",".join(map(str, runs))
    options = ["trainer.distillation.rounds=0", f"trainer.distillation.members=[{paths}]"]
    folder = train_run(tmp_path / "both", *options)
    [metrics] = read_run(folder).rounds
    assert metrics.keys() == {"member 1", "member 2", "ensemble"}
    ensemble = restore_model(folder).model
    for member, path in zip(ensemble.members, runs, strict=True):
        assert max_abs_difference(weights_of(member), weights_of(restore_model(path).model)) == 0
    student = train_run(tmp_path / "student", f"trainer.teachers=[{folder}]")
    assert read_lock(student)["teachers"] == {str(folder): Ensemble([ensemble]).digest()}


def test_members_are_in_the_order_of_the_rounds_by_number(tmp_path):
    options = replace(NO_DISTILLATION, rounds=12, members=["x"])
    names = [name.split("/")[-3] for name in members(options, tmp_path, 11)[1:]]
    assert names == [str(number) for number in range(1, 12)]
