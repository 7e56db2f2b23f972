"""Curricula: every row once, in the same order with threads and without, and from any position."""

import json
from collections import Counter

import numpy as np
import pytest

from mlxlab.data.batch import set_curriculum_alpha
from mlxlab.data.rng import counter_hash
from mlxlab.data.text.order import count_tokens
from mlxlab.errors import ConfigError, DataError
from mlxlab.extensions.curriculum.curriculum import CurriculumOrder, MeasuredOrder
from mlxlab.extensions.curriculum.served_rows import (
    encode_counts,
    kl_divergence,
)
from support.streams import (
    VOCABULARY,
    InMemorySource,
    as_lists,
    make_batches,
    make_row_builder,
    take,
)

SCHEDULE = [[0, 1.0], [7, 0.3], [31, 0.0]]


def curriculum(alpha=SCHEDULE, pool=20, rescore_every=5, keep=1.0):
    return CurriculumOrder(alpha, pool, rescore_every, keep)


def make(order=None, source=None, seed=3, row_buffer=0, steps=None, exact=True, **frame):
    """Batches of an order whose token counts are those of the first epoch."""
    stream = make_batches(source=source).chunks
    corpus = count_tokens(stream, VOCABULARY)._replace(exact=exact)
    builder = {name: frame[name] for name in frame if name not in ("prefetch", "batch_size")}
    layout = make_row_builder(**builder).layout
    rows = (order or curriculum()).arrange_rows(lambda: corpus, layout, row_buffer, seed, steps)
    return make_batches(source=source, seed=seed, order=rows, **frame)


def epochs_of_rows(batches, count=2):
    """The real rows of each epoch with their targets, in the order served."""
    epochs = []
    for _ in range(count):
        rows = []
        for batch in batches:
            pairs = zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True)
            kept = zip(pairs, batch.example_ids, strict=True)
            rows += [(tuple(tokens), tuple(targets)) for (tokens, targets), id in kept if id >= 0]
        epochs.append(rows)
    return epochs


FRAMES = {
    "causal": {},
    "masked": {"masked": True, "mask_across_documents": True},
    "overlapping": {"stride": 3, "mask_across_documents": True},
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("pool", [1, 20, 1000])
def test_every_row_is_served_once_per_epoch(frame, pool):
    served = epochs_of_rows(make(curriculum(pool=pool), **frame))
    for ordered, plain in zip(served, epochs_of_rows(make_batches(**frame)), strict=True):
        assert sorted(ordered) == sorted(plain)
        assert (ordered == plain) == (pool == 1)


def random_order(number):
    draws = counter_hash(number, np.arange(5)).astype(np.int64) % 1000
    pool, every, start = int(draws[0] % 40), int(draws[1] % 9), int(draws[3]) % 40
    keep = 1.0 if draws[4] % 2 else 0.1 + draws[2] % 9 / 10
    order = curriculum([[0, 1.0], [1 + start, 0.5]], pool + 1, every + 1, keep)
    frame = FRAMES[list(FRAMES)[number % 3]]
    return order, {**frame, "batch_size": int(draws[1] % 5 + 1)}


SLOW = [pytest.param(number, marks=pytest.mark.fault_injection) for number in range(6, 300)]
MANY = [*range(6), *SLOW]


@pytest.mark.parametrize("number", MANY)
def test_an_order_is_a_permutation_that_depends_on_neither_threads_nor_resumes(number):
    order, frame = random_order(number)
    expected = [as_lists(batch) for batch in make(order, **frame)]
    [rows] = epochs_of_rows(make(order, **frame), 1)
    [plain] = epochs_of_rows(make_batches(**frame), 1)
    assert Counter(rows) <= Counter(plain)
    assert len(rows) == order.rows_per_epoch(len(plain))
    taken, batches, state = [], make(order, **frame), None
    while batches.epoch == 0:
        batches = make(order, prefetch=number % 3, **frame)
        if state is not None:
            batches.load_state_dict(json.loads(state))
        taken += take(batches, 1)
        state = json.dumps(batches.state_dict())
        assert len(state) < 700
    assert taken == expected


def test_neglected_tokens_come_first_and_counts_follow():
    common, rare = ["a" * 8] * 60, ["bcdefgh", "ijklmnop", "qrstuvw"]
    source = InMemorySource(common + rare, size=100)
    batches = make(curriculum(1.0, pool=1000, rescore_every=1), source, batch_size=1)
    first = [batch[0][0] for batch in take(batches, 6)]
    assert sum(any(98 <= token < 123 for token in row) for row in first) >= 4
    metrics = batches.order_metrics()
    counts = np.bincount(np.concatenate(first), minlength=VOCABULARY)
    assert metrics["data/kl_uniform"] == kl_divergence(counts, np.full(VOCABULARY, 1 / VOCABULARY))
    assert metrics["data/curriculum_alpha"] == 1.0


def test_alpha_set_during_a_run_is_exact_from_the_next_batch_on():
    def run(prefetch, resume):
        batches = make(curriculum(1.0, pool=100, rescore_every=50), prefetch=prefetch)
        stream = iter(batches)
        taken = [as_lists(next(stream)) for _ in range(4)]
        set_curriculum_alpha(batches, 0.25)
        if resume:
            state = json.dumps(batches.state_dict())
            stream.close()
            batches = make(curriculum(1.0, pool=100, rescore_every=50), prefetch=prefetch)
            batches.load_state_dict(json.loads(state))
            stream = iter(batches)
        taken += [as_lists(next(stream)) for _ in range(6)]
        state = json.dumps(batches.state_dict())
        assert batches.order_metrics()["data/curriculum_alpha"] == 0.25
        stream.close()
        return taken, state

    expected = run(0, False)
    assert all(run(*case) == expected for case in [(2, False), (0, True), (2, True)])
    assert expected[0] != take(make(curriculum(1.0, pool=100, rescore_every=50)), 10)
    assert expected[0][:4] == take(make(curriculum(1.0, pool=100, rescore_every=50)), 4)


@pytest.mark.parametrize("row_buffer", [0, 10])
def test_measuring_a_shuffle_changes_no_batch(row_buffer):
    measured = make(MeasuredOrder(), row_buffer=row_buffer)
    assert take(measured, 40) == take(make_batches(row_shuffle_buffer=row_buffer), 40)
    metrics = measured.order_metrics()
    assert metrics["data/curriculum_alpha"] == 0
    assert metrics["data/rare_coverage"] == 1  # more than an epoch
    assert not make_batches().order_metrics()
    for batches in (measured, make_batches(), make_batches(prefetch=1)):
        with pytest.raises(ConfigError, match="expected data/order=curriculum"):
            set_curriculum_alpha(batches, 0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"counts": "!"},
        {"counts": encode_counts(np.zeros(7, np.int64))},
        {"counts": encode_counts(np.full(VOCABULARY, 10**14))},
        {"alphas": []},
        {"alphas": [{"row": 0, "alpha": 2.0}]},
        {"alphas": [{"row": 0, "alpha": 1.0}, {"row": 99, "alpha": 0.5}]},
        {"step": -1},
        {"extra": 1},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_malformed_position_is_refused_in_one_line(change):
    batches = make()
    take(batches, 3)
    state = batches.state_dict()
    with pytest.raises(DataError, match="the saved position is malformed") as error:
        make().load_state_dict(state | {"served": state["served"] | change})
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="malformed"):
        make().load_state_dict(make_batches().state_dict())
    far = make()
    far.load_state_dict(state | {"rows_drawn": 25})
    with pytest.raises(DataError, match="row 25 of a pool of 20"):
        next(iter(far))


@pytest.mark.parametrize(
    "alpha",
    [[[0, 1.5]], [[0.1, 1.0]], [[0, 1.0], [0, 0.5]], [[0, 1.0], [0.5, 0.5], [100, 0.1]], []],
)
def test_a_bad_schedule_is_refused(alpha):
    with pytest.raises(ConfigError, match=r"from 0 on|fractions below 1 or whole steps"):
        curriculum(alpha)


def test_fractions_are_of_the_length_of_the_run():
    ranking = make(curriculum([[0, 1.0], [0.5, 0.2]]), steps=40).order.ranking
    assert [ranking.alpha(step) for step in (0, 19, 20, 90)] == [1.0, 1.0, 0.2, 0.2]
    with pytest.raises(ConfigError, match=r"trainer\.max_steps"):
        make(curriculum([[0, 1.0], [0.5, 0.2]]))
