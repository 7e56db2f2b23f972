"""Laws of the teacher cache: exact round trips, keys by content, corrupt files and records."""

import logging
import resource
import sqlite3
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import xxhash
from scipy.special import log_softmax

from distillation.test_loss import SETTINGS
from mlxlab.data.batch import Batch
from mlxlab.distillation import teacher_cache
from mlxlab.distillation.loss import DistillationLoss, soft_target_divergence
from mlxlab.distillation.teacher_cache import TeacherCache, row_key
from mlxlab.distillation.teachers import SoftTargets, Teachers
from mlxlab.models.ensemble import Ensemble, FrozenModel
from mlxlab.training.checkpointer import Checkpointer
from support.models import (
    TASK,
    NoOpCallback,
    fit,
    make_model,
    make_trainer,
)

V = 13


def new_cache(folder, top_k=4, dtype="float32", num_classes=V) -> TeacherCache:
    return TeacherCache(top_k, dtype, folder=folder, num_classes=num_classes)


def text(rows=3, length=7, seed=0) -> Batch:
    """A batch of a language model; the rows end with padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, V, (rows, length)).astype(np.int32)
    segment_ids = (np.arange(length) < length - np.arange(rows)[:, None]).astype(np.int32)
    return Batch(
        tokens * segment_ids, segment_ids, tokens, segment_ids.astype(np.float32), np.arange(rows)
    )


def logits_of(batch: Batch, seed=1) -> mx.array:
    """Logits that are a function of the token alone."""
    table = np.random.default_rng(seed).normal(size=(V, V)).astype(np.float32) * 2
    return mx.array(table[batch.tokens])


def never():
    raise AssertionError("the teachers were queried again")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_soft_targets_are_read_back_bit_for_bit_without_querying_the_teachers(tmp_path, dtype):
    batch = text()
    first = new_cache(tmp_path, dtype=dtype)
    fresh = first.soft_targets(batch, lambda: logits_of(batch))
    waiting = first.soft_targets(batch, never)
    first.flush()
    read = new_cache(tmp_path, dtype=dtype).soft_targets(batch, never)
    for name in fresh:
        assert fresh[name].tobytes() == waiting[name].tobytes() == read[name].tobytes()


def test_the_key_of_a_row_depends_on_its_content_only(tmp_path):
    batch, cache = text(), new_cache(tmp_path)
    before = cache.soft_targets(batch, lambda: logits_of(batch))
    wide = [np.pad(array, ((0, 0), (0, 5))) for array in batch[:4]]
    moved = Batch(*(array[::-1] for array in wide), np.array([7, 8, 9]))
    after = cache.soft_targets(moved, never)
    np.testing.assert_array_equal(
        after["teacher"][::-1, :7][batch.segment_ids > 0], before["teacher"][batch.segment_ids > 0]
    )
    assert row_key(batch.tokens[0], batch.segment_ids[0]) != row_key(
        batch.tokens[0], batch.segment_ids[0] * 2
    )
    assert row_key(batch.tokens[1], batch.segment_ids[1]) == row_key(
        batch.tokens[1], batch.segment_ids[1] > 0
    )


def test_rows_of_cells_that_differ_in_fractions_have_keys_of_their_own():
    rows = np.array([[0.25, 3.0], [0.5, 3.0], [0.25, 4.0], [np.nan, 3.0]], np.float32)
    keys = {row_key(row, np.ones(1, np.int32)) for row in rows}
    assert len(keys) == 4
    assert row_key(rows[0].copy(), np.ones(1, np.int32)) in keys


def test_the_top_k_divergence_is_a_divergence_and_at_most_the_full_one(tmp_path):
    batch = text()
    cached = new_cache(tmp_path).soft_targets(batch, lambda: logits_of(batch))
    top_k = SoftTargets(mx.array(cached["teacher"]), mx.array(cached["teacher_classes"]))

    def divergence(targets, seed, temperature=1.0):
        student = logits_of(batch, seed)
        values = soft_target_divergence(targets, student, temperature, "forward")
        return np.array(values)[batch.segment_ids > 0]

    for temperature in (1.0, 3.0):
        np.testing.assert_allclose(divergence(top_k, 1, temperature), 0, atol=2e-6)
    actual = divergence(top_k, 2)
    assert (actual > 0).all()
    assert (actual <= divergence(SoftTargets(logits_of(batch)), 2) + 1e-6).all()


def test_the_top_k_and_the_probability_of_all_other_classes_are_stored_and_reported(tmp_path):
    batch = text()
    real = batch.segment_ids > 0
    log_p = log_softmax(np.array(logits_of(batch), np.float64), axis=-1)
    tail = np.sort(np.exp(log_p), axis=-1)[..., :-4].sum(axis=-1)[real].mean()
    for _ in range(2):  # computed, then read
        cache = new_cache(tmp_path)
        extra = cache.soft_targets(batch, lambda: logits_of(batch))
        cache.flush()
        found = zip(
            extra["teacher"][real], extra["teacher_classes"][real], log_p[real], strict=True
        )
        for values, classes, full in found:
            assert set(classes) == set(np.argsort(full)[-4:])
            np.testing.assert_allclose(values[:-1], full[classes], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(np.exp(values).sum(), 1, rtol=1e-5)
        assert cache.targets == real.sum()
        assert cache.tail / cache.targets == pytest.approx(tail, rel=1e-4)
        assert f"{100 * tail:.2g} % of the probability" in cache.describe()


def store_file(folder) -> Path:
    return folder / teacher_cache.FILE


def filled_cache(folder, batch) -> dict[str, np.ndarray]:
    """Stores the soft targets of a batch, and returns them."""
    cache = new_cache(folder)
    soft_targets = cache.soft_targets(batch, lambda: logits_of(batch))
    cache.flush()
    return soft_targets


def assert_computed_again(folder, batch, expected, caplog, warning) -> None:
    """A new cache warns once, computes what it cannot use, and then holds it."""
    with caplog.at_level(logging.WARNING):
        cache = new_cache(folder)
        actual = cache.soft_targets(batch, lambda: logits_of(batch))
    assert [warning in record.message for record in caplog.records] == [True]
    for name in expected:
        assert actual[name].tobytes() == expected[name].tobytes()
    cache.flush()
    new_cache(folder).soft_targets(batch, never)


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "not a database": lambda content: b"x" * len(content),
    "page": lambda content: content[:4096] + b"\xff" * 4096 + content[8192:],
    "another schema": "CREATE TABLE more (x)",
    "a view": "CREATE VIEW more AS SELECT 1",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_corrupt_file_is_created_again_with_one_warning(tmp_path, caplog, damage):
    batch = text()
    expected = filled_cache(tmp_path, batch)
    path = store_file(tmp_path)
    if isinstance(damage, str):
        with sqlite3.connect(path) as database:
            database.execute(damage)
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert_computed_again(tmp_path, batch, expected, caplog, "is created again")


@pytest.mark.parametrize(
    "damage", ["checksum", "length", "fewer targets", "class out of range", "NaN", "type"]
)
def test_a_record_that_cannot_be_right_is_computed_again(tmp_path, caplog, damage):
    batch = text(rows=1)
    expected = filled_cache(tmp_path, batch)
    count = int(batch.segment_ids.sum())
    targets = np.zeros(count, new_cache(tmp_path).record_type)
    if damage == "length":
        record: bytes | str = targets.tobytes()[:-3]
    elif damage == "fewer targets":
        record = targets[1:].tobytes()
    elif damage == "class out of range":
        targets["classes"] = V
        record = targets.tobytes()
    elif damage == "type":
        record = "text"  # of the right checksum
    else:
        targets["values"] = np.nan
        record = targets.tobytes()
    content = record.encode() if isinstance(record, str) else record
    checksum = xxhash.xxh3_64_digest(b"another" if damage == "checksum" else content)
    with sqlite3.connect(store_file(tmp_path)) as database:
        database.execute("UPDATE records SET record = ?, checksum = ?", (record, checksum))
    assert_computed_again(tmp_path, batch, expected, caplog, "is corrupt")


def test_two_processes_may_fill_one_cache(tmp_path):
    first, second = new_cache(tmp_path), new_cache(tmp_path)
    for seed, cache in enumerate((first, second, first, second)):
        cache.soft_targets(text(seed=seed), lambda seed=seed: logits_of(text(seed=seed)))
        cache.flush()
    for seed in range(4):
        new_cache(tmp_path).soft_targets(text(seed=seed), never)


def caching_loss(folder):
    cache = new_cache(folder, top_k=2, num_classes=2)
    loaded = Teachers(Ensemble([FrozenModel(make_model(seed=1))]), cache=cache)
    return DistillationLoss(**SETTINGS, loaded_teachers=loaded, task=TASK), cache


def test_soft_targets_are_on_disk_before_a_checkpoint_is_saved(tmp_path):
    loss, _ = caching_loss(tmp_path / "cache")
    counts: list[int] = []

    class CountRecords(NoOpCallback):
        def on_step(self, context, state, result):
            with sqlite3.connect(store_file(tmp_path / "cache")) as database:
                counts.append(database.execute("SELECT count(*) FROM records").fetchone()[0])

    checkpointer = Checkpointer(2, 2, background=False, folder=tmp_path)
    fit(make_trainer(loss=loss, epochs=1), callbacks=[CountRecords()], checkpointer=checkpointer)
    assert counts[:3] == [0, 0, 8], "a step alone writes nothing, the save after step 2 does"


def test_soft_targets_are_on_disk_at_the_end_of_a_run_without_checkpoints(tmp_path):
    for misses in (22, 0):
        loss, cache = caching_loss(tmp_path)
        fit(make_trainer(loss=loss, epochs=1))
        assert cache.misses == misses


def test_a_full_disk_costs_one_warning_and_not_the_run(tmp_path, caplog):
    cache, batch = new_cache(tmp_path), text()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with caplog.at_level(logging.WARNING):
            expected = cache.soft_targets(batch, lambda: logits_of(batch))
            cache.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ["cannot be written" in record.message for record in caplog.records] == [True]
    again = cache.soft_targets(batch, lambda: logits_of(batch))
    assert again["teacher"].tobytes() == expected["teacher"].tobytes()
