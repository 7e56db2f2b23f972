"""Importance names the keys that matter, and says so where nothing can be said."""

import numpy as np
import pytest

from mlxlab.stats.importance import measure_importance


def points(count):
    rng = np.random.default_rng(0)
    return [
        {
            "rate": repr(10 ** rng.uniform(-5, -2)),
            "layers": str(rng.integers(1, 5)),
            "model": str(rng.choice(["a", "b"])),
        }
        for _ in range(count)
    ]


def test_the_key_that_decides_comes_first():
    space = points(40)
    values = [abs(np.log10(float(point["rate"])) + 3.5) for point in space]
    importance = measure_importance(space, values)
    assert next(iter(importance.shares)) == "rate"
    assert importance.shares["rate"] > 0.8
    assert sum(importance.shares.values()) == pytest.approx(1)
    assert importance.explained > 0.5


def test_of_noise_there_is_no_importance():
    importance = measure_importance(points(30), list(np.random.default_rng(1).standard_normal(30)))
    assert not importance.shares
    assert importance.reason == "noise"


@pytest.mark.parametrize(
    ("space", "values", "reason"),
    [
        ([], [], "one key"),
        ([{"rate": "1"}] * 20, [1.0] * 20, "one key"),
        (points(11), list(range(11)), "too few configurations"),
        (points(20), [1.0] * 20, "equal values"),
    ],
)
def test_what_cannot_be_said_is_named(space, values, reason):
    assert measure_importance(space, values).reason == reason
