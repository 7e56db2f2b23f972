"""What a run prints at its end."""

from mlxlab.experiment.report import number
from mlxlab.experiment.run_metrics import numbers


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
