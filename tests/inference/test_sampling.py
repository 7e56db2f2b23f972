"""The law of every option of sampling, on logits small enough to see through."""

import numpy as np
import pytest

from mlxlab.errors import DataError
from mlxlab.inference.generate import GenerationConfig

SHARES = np.array([0.05, 0.4, 0.1, 0.2, 0.25])  # by falling share: tokens 1, 4, 3, 2, 0
LOGITS = np.log(SHARES).astype(np.float32)
NOTHING = np.zeros(0, np.int64)
ALL = {"temperature": 1.0, "top_k": 0}


def distribution(logits=LOGITS, seen=NOTHING, **options):
    found = np.zeros(len(logits))
    tokens, shares = GenerationConfig(**(ALL | options)).candidates(logits, seen)
    found[tokens] = shares
    return found


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_temperature_is_a_power_of_the_probabilities(temperature):
    power = SHARES ** (1 / temperature)
    np.testing.assert_allclose(
        distribution(temperature=temperature), power / power.sum(), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [1, 4]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.6}, [1, 4]),
        ({"top_p": 0.7}, [1, 3, 4]),
        ({"top_p": 0.4 - 1e-6}, [1]),
        ({"min_p": 0.3}, [1, 3, 4]),
        ({"min_p": 0.99}, [1]),
        ({"top_p": 0.45}, [1, 4]),
        # Of the three left by top_k the first has 0.4 / 0.85: it alone reaches 0.45.
        ({"top_k": 3, "top_p": 0.45}, [1]),
    ],
)
def test_the_tokens_that_an_option_keeps_have_their_shares(options, kept):
    """The most probable k, the fewest that reach a share, or those above a share of the greatest."""
    shares = np.where(np.isin(np.arange(5), kept), SHARES, 0)
    np.testing.assert_allclose(distribution(**options), shares / shares.sum(), rtol=1e-6)


def test_repetition_penalty_divides_positive_logits_and_multiplies_negative_ones():
    logits, seen = np.array([2.0, -1.0, 0.5, 0.0], np.float32), np.array([0, 1])
    expected = np.exp([1.0, -2.0, 0.5, 0.0])
    actual = distribution(logits, seen=seen, repetition_penalty=2.0)
    np.testing.assert_allclose(actual, expected / expected.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-9}]
)
def test_these_are_greedy_whatever_the_chance(options):
    rng = np.random.default_rng(0)
    for logits in rng.normal(size=(20, 50)).astype(np.float32):
        logits[rng.integers(50)] = logits.max()  # also where two are equal: the lower id
        sampling = GenerationConfig(**(ALL | options))
        if options == {"temperature": 1e-9}:
            logits[logits.argmax()] += 1e-3
        assert {sampling.sample(logits, NOTHING, chance) for chance in (0.0, 0.5, 1 - 1e-16)} == {
            int(logits.argmax())
        }


def test_chances_fall_on_tokens_in_proportion():
    sampling = GenerationConfig(**(ALL | {"top_k": 4, "min_p": 0.1}))
    drawn = [
        sampling.sample(LOGITS, NOTHING, chance) for chance in (np.arange(10_000) + 0.5) / 10_000
    ]
    np.testing.assert_allclose(
        np.bincount(drawn, minlength=5) / 10_000, [0, *(SHARES[1:] / 0.95)], atol=1e-4
    )


def test_logits_without_a_finite_number_are_refused():
    assert GenerationConfig().sample(np.array([np.nan, 1.0, -np.inf]), NOTHING, 0.9) == 1
    for value in (np.nan, -np.inf, np.inf):
        with pytest.raises(DataError, match="finite"):
            GenerationConfig().sample(np.full(5, value), NOTHING, 0.5)
