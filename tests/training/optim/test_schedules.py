"""A learning-rate schedule knows the length of its run, where it needs it."""

import pytest

from mlxlab.errors import ConfigError
from mlxlab.training.optim.schedules import cosine, linear, wsd


@pytest.mark.parametrize("schedule", [cosine, linear])
def test_a_decay_over_the_whole_run_needs_its_length(schedule):
    with pytest.raises(ConfigError, match="needs the length of the run"):
        schedule(0, 0.1, peak=1.0, steps=None)


def test_a_warm_up_over_a_fraction_of_the_run_needs_its_length():
    with pytest.raises(ConfigError, match="unknown length"):
        wsd(0.5, 0.1, 0.2, peak=1.0, steps=None)
    with pytest.raises(ConfigError, match="warmup"):
        cosine(200, 0.0, peak=1.0, steps=100)
    assert wsd(5, 0.1, 0.2, peak=1.0, steps=None)(0).item() > 0
