"""What a run prints at its end."""

import sys
from types import SimpleNamespace

import mlx.nn as nn

from mlxlab.experiment.report import closing_lines, describe_memory, number
from mlxlab.experiment.run_metrics import numbers
from mlxlab.training.optim.optimizers import adamw


def test_closing_lines_are_commands_with_paths_as_they_are_typed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "r"
    expected = ["run folder: r", "next: mlxlab evaluate run=r", "next: mlxlab generate run=r"]
    assert closing_lines(run, generates=True, predicts=False) == expected
    (run / "inference").mkdir(parents=True)
    (run / "inference" / "chat_template.jinja").touch()
    assert closing_lines(run, generates=True, predicts=False) == [
        *expected[:2],
        f"{expected[2]} chat=true",
    ]
    assert closing_lines(run, generates=False, predicts=False) == expected[:2]
    predict = f"{expected[1].replace('evaluate', 'predict')} input=FILE output=predictions.csv"
    assert closing_lines(run, generates=False, predicts=True) == [*expected[:2], predict]
    monkeypatch.chdir("/")
    assert (
        closing_lines(run, generates=False, predicts=False)[0]
        == f"run folder: {run.relative_to('/')}"
    )
    monkeypatch.chdir(sys.prefix)
    assert closing_lines(run, generates=False, predicts=False)[0] == f"run folder: {run}"


def test_numbers_are_short_at_every_scale():
    values = (0.0, 1e-16, -2e-5, 0.00123, 61.62131, 123456.7, float("nan"))
    assert [*map(number, values)] == [
        "0.0000",
        "0.0000",
        "-2e-05",
        "0.0012",
        "61.6213",
        "1.235e+05",
        "nan",
    ]


def test_numbers_of_one_sentence_have_one_style_and_zero_has_no_sign():
    assert numbers(-0.0007639, -0.0038, 0.002) == ["-0.0008", "-0.0038", "0.0020"]
    assert numbers(-0.0007639, 0.0) == ["-0.0007639", "0.0000"]
    assert number(-0.0) == number(-1e-12) == "0.0000"


def test_a_run_whose_weights_and_optimizer_do_not_fit_is_announced():
    model = nn.Linear(10, 10)
    optimizer = adamw(learning_rate=1e-3, weight_decay=0.0, betas=[0.9, 0.999], eps=1e-8)
    optimizer.init(model.trainable_parameters())
    state = SimpleNamespace(model=model, optimizer=optimizer)
    needed = 4 * 4 * 110  # weights, gradients and two moments, in float32
    assert describe_memory(state, needed + 100) == []  # 100: step and learning rates
    [line] = describe_memory(state, needed - 1)
    assert line.startswith(
        "does not fit this machine: weights, gradients and optimizer take 0.00 GB"
    )
