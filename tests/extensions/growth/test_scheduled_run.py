"""A growth schedule is tried before a run starts, and shown by --dry-run; a run says what it left undone."""

import re

import numpy as np
import pytest

from mlxlab.checkpoint.names import FOLDER
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.cli.train import main
from support.lines import LINES
from support.processes import NO_PLOTS

SIZES = """model.num_layers=1 model.hidden_size=16 model.num_heads=2 model.intermediate_size=16
trainer.eval_batches=1 data.prefetch=0 data.batch_size=16 tracking=none"""
DATA = "data.source=synthetic data.templates=[basic] data.augment.copies=1"
SETTINGS = [*SIZES.split(), *DATA.split(), *NO_PLOTS]
DEEPER = "{id: deeper, op: stack, map: [0, 0], when: {or_steps: 1}}"
WIDER = "{id: wider, op: widen, feed_forward: 24, when: {metric_below: 0.01, or_steps: 50}}"
UNFIT = "{id: wider, op: widen, feed_forward: 8, when: {or_steps: 50}}"
REFUSAL = "callbacks.growth.operations: wider: feed_forward: expected more than 16, got 8"


def schedule(*operations):
    return f"callbacks.growth.operations=[{', '.join(operations)}]"


@pytest.fixture(scope="module")
def grown_run(tmp_path_factory):
    """Of two operations the first is done, after step 1 of 2."""
    folder = tmp_path_factory.mktemp("grown")
    args = [*SETTINGS, schedule(DEEPER, WIDER), "trainer.max_steps=2", f"hydra.run.dir={folder}"]
    assert main(args) == 0
    return folder


def test_an_operation_that_cannot_work_is_refused_before_the_run_starts(tmp_path, capsys):
    args = [*SETTINGS, f"hydra.run.dir={tmp_path}/run"]
    assert main([*args, schedule(DEEPER, UNFIT)]) == 2
    assert REFUSAL in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_resume_tries_what_is_not_done_with_the_model_of_the_checkpoint(grown_run, capsys):
    before = sorted((grown_run / FOLDER).iterdir())
    resume = [f"resume={grown_run}", "trainer.max_steps=4"]
    assert main([*resume, schedule(DEEPER, UNFIT)]) == 2
    assert REFUSAL in capsys.readouterr().err
    again = "{id: again, op: stack, map: [0, 0], when: {or_steps: 1}}"
    assert main([*resume, schedule(DEEPER, again)]) == 2
    # There are two layers by now.
    assert "again: map: [0, 0] drops or reorders" in capsys.readouterr().err
    assert sorted((grown_run / FOLDER).iterdir()) == before


MORE_TOKENS = "{id: tokens, op: resize_vocabulary, size: 3000, when: {or_steps: 1}}"


def test_a_classifier_with_teachers_learns_the_same_with_more_tokens(grown_run, tmp_path):
    taught = ["trainer=distill", f"trainer.teachers=['{grown_run}']", "trainer.max_steps=2"]
    distill = [*SETTINGS, *taught]
    assert main([*distill, f"hydra.run.dir={tmp_path}/fixed"]) == 0
    assert main([*distill, schedule(MORE_TOKENS), f"hydra.run.dir={tmp_path}/grown"]) == 0
    fixed, grown = (
        CheckpointStore(tmp_path / name / FOLDER).load().weights for name in ("fixed", "grown")
    )
    for name, weights in fixed.items():
        same = grown[name][: len(weights)] if weights.ndim else grown[name]
        np.testing.assert_array_equal(same, weights)
    assert grown["backbone.embedding.weight"].shape[0] == 3000


def text_settings(folder):
    """Settings of a language model on a few lines of text."""
    lines = "".join(f'{{"text": "{line}"}}\n' for line in LINES)
    (folder / "lines.jsonl").write_text(lines, encoding="utf-8")
    choices = ["model=transformer", "data=streaming", "data/tokenizer=characters"]
    return [*choices, f"data.source={folder}/lines.jsonl", "data.valid_fraction=0.3"]


def test_a_teacher_with_more_tokens_than_its_student_is_refused_or_truncated(tmp_path, capsys):
    others = [each for each in SETTINGS if not each.startswith(("data.s", "data.t", "data.a"))]
    args = [*text_settings(tmp_path), *others, "trainer.max_steps=2"]
    teacher = ["objective=valid/bits_per_byte", f"hydra.run.dir={tmp_path}/teacher"]
    assert main([*args, *teacher, schedule(MORE_TOKENS)]) == 0
    student = [f"trainer.teachers=[{tmp_path}/teacher]", f"hydra.run.dir={tmp_path}/run"]
    distill = [*args, "trainer=distill", *student]
    capsys.readouterr()
    assert main(distill) == 77
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(r"the student's \d+ tokens, got 3000; .*vocab_mapping=subset", line)
    tokenizer = f"data.tokenizer.path={tmp_path}/teacher/inference"
    assert main([*distill, "trainer.distillation.vocab_mapping=subset", tokenizer]) == 0
    assert "final_state=" in capsys.readouterr().out


def test_the_dry_run_of_a_run_takes_one_step_and_writes_nothing(tmp_path, capsys):
    assert main([*SETTINGS, "--dry-run", f"hydra.run.dir={tmp_path}/run"]) == 0
    assert re.search(r"^one step: \d", capsys.readouterr().out, re.M)
    assert not list(tmp_path.iterdir())
    missing = f"trainer.teachers=[{tmp_path}/missing]"
    assert main([*SETTINGS, "--dry-run", "trainer=distill", missing]) == 66
    assert "trainer.teachers=" in capsys.readouterr().err


def test_distillation_without_teachers_is_one_line_unless_students_teach_each_other(capsys):
    assert main([*SETTINGS, "--dry-run", "trainer=distill"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("trainer.teachers: ")
    assert main([*SETTINGS, "--dry-run", "trainer=distill", "trainer.teachers=[]"]) == 0
    assert main(["trainer=distill", "trainer.distillation.rounds=2", "--cfg", "job"]) == 0
