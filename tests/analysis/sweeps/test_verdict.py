"""The verdict on a sweep in sentences."""

import pytest

from mlxlab.analysis.sweeps.sweep_jobs import Sweep, SweepJob
from mlxlab.analysis.sweeps.sweep_report import view_sweep


def verdict(rows, repetition="seed"):
    """The verdict on rows of values by seed or fold, of which some have fewer; the first key is x."""
    jobs = []
    for x, row in enumerate(rows):
        for number, value in enumerate(row):
            overrides = {"x": str(x), repetition: str(number)}
            jobs.append(SweepJob(len(jobs), overrides, "finished", value))
    return view_sweep(Sweep("s", "valid/loss", tuple(jobs))).verdict


@pytest.mark.parametrize(
    ("table", "expected", "advice"),
    [
        ([], "No job has finished", ""),
        ([[0.5]], "Only one configuration has finished: valid/loss 0.5000 (one seed).", ""),
        (
            [[0.5], [0.4]],
            "No winner is named with fewer than 3 seeds of each configuration; each ran once",
            "At least 2 more seeds of each are needed.",
        ),
        (
            [[0.5, 0.6, 0.55], [0.5, 0.5, 0.51], [0.1, 0.2]],
            "No winner is named with fewer than 3 seeds of each configuration; 1 of 3 has fewer. The best mean is",
            "1 more seed of each would settle it",
        ),
        ([[0.5, 0.6, 0.55], [0.1, 0.2, 0.15]], "Winner: x=1, valid/loss 0.1500 ± ", ""),
        (
            [[0.5, 0.6, 0.55], [0.5, 0.63, 0.5]],
            "No winner: 2 of 2 configurations may be the best.",
            "200 further seeds",
        ),
    ],
)
def test_the_verdict_is_a_sentence_and_says_what_would_settle_it(table, expected, advice):
    sentences = verdict(table)
    assert sentences[0].startswith(expected)
    assert (advice in sentences[-1]) if advice else len(sentences) == 1
