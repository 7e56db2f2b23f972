"""What a run prints at its end."""

from types import SimpleNamespace

import mlx.nn as nn

from mlxlab.experiment.report import describe_memory, number
from mlxlab.experiment.run_metrics import numbers
from mlxlab.training.optim.optimizers import adamw


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
