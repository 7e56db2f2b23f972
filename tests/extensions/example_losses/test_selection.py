"""Losses by example as files, and the choice of examples by them."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from mlxlab.config.hydra.compose import compose, without_hydra
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.extensions.example_losses import files as example_losses
from mlxlab.extensions.example_losses.selection import LossSelection
from mlxlab.run.rounds import round_config
from support.losses import write_losses
from support.titanic import make_titanic, real_rows


def rows(ids, sums, targets=None, step=1, kl=None, **more):
    """A table of per-example losses."""
    ids, sums = np.array(ids, np.int64), np.array(sums, np.float32)
    targets = np.ones(len(ids), np.float32) if targets is None else np.array(targets, np.float32)
    none = np.full(len(ids), np.nan, np.float32)
    table = {"id": ids, "step": np.full(len(ids), step), "time": np.full(len(ids), float(step))}
    table |= {"targets": targets, "sum": sums, "mean": sums / targets, "cross_entropy": none}
    return table | {"kl": none if kl is None else np.array(kl)} | more


def append(run, *tables):
    """Writes tables to the streams of a run folder."""
    writer = example_losses.StreamWriter(run / "example_losses")
    for table in tables:
        writer.append(table)
    writer.close()


def select(mode, percent=25, score="mean", source=None):
    return LossSelection(mode, percent, score, str(source) if source else None)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "losses.parquet"
    write_losses(rows([4, 1, 3, 2, 5], [0.4, 0.1, 0.3, 0.3, 0.5]), path)
    return path


def test_the_hardest_and_the_easiest_are_chosen_and_ties_go_to_the_lesser_id(source):
    assert select("hardest", 40, source=source).chosen(0).tolist() == [4, 5]
    assert select("hardest", 60, source=source).chosen(0).tolist() == [2, 4, 5]
    assert select("easiest", 40, source=source).chosen(0).tolist() == [1, 2]
    assert select(None, source=source).chosen(0) is None


@pytest.mark.parametrize(
    ("n", "percent", "count"), [(5, 25, 2), (4, 25, 1), (3, 0.001, 1), (7, 100, 7), (3000, 1.1, 33)]
)
def test_the_count_is_the_ceiling_of_n_k_percent_and_at_least_one(tmp_path, n, percent, count):
    write_losses(rows(range(n), np.arange(n)), tmp_path / "a.parquet")
    assert len(select("hardest", percent, source=tmp_path / "a.parquet").chosen(0)) == count


def test_by_kl_rows_without_one_are_not_chosen(tmp_path):
    kl = np.array([0.1, np.nan, 0.3], np.float32)
    write_losses(rows([1, 2, 3], [9, 9, 9], kl=kl), tmp_path / "a.parquet")
    assert select("hardest", 100, "kl", tmp_path / "a.parquet").chosen(0).tolist() == [1, 3]


def test_a_random_choice_is_a_function_of_the_seed_and_needs_no_source():
    known = np.arange(1000)
    first, second = (select("random", 10).chosen(seed, known) for seed in (1, 2))
    np.testing.assert_array_equal(first, select("random", 10).chosen(1, known[::-1]))
    assert len(first) == len(second) == 100
    assert not np.array_equal(first, second)


def test_a_choice_without_anything_to_choose_from_is_refused(tmp_path, source):
    write_losses(rows([], []), tmp_path / "empty")
    (tmp_path / "text").write_text("id,loss\n")
    faults = {"empty": DataError, "text": DataError, "no": InputNotFoundError}
    for name, fault in faults.items():
        with pytest.raises(fault, match=str(tmp_path / name)):
            select("hardest", source=tmp_path / name).chosen(0)
    with pytest.raises(DataError, match="kl"):
        select("hardest", score="kl", source=source).chosen(0)
    with pytest.raises(DataError, match="other data"):
        select("hardest", source=source).chosen(0, np.array([77]))
    with pytest.raises(ConfigError, match="source"):
        select("easiest")
    with pytest.raises(ConfigError, match="source"):
        select("random").chosen(0)


def test_the_latest_step_of_a_run_wins(tmp_path):
    first = tmp_path / "first"
    (first / "example_losses").mkdir(parents=True)
    append(first, rows([1, 2], [1.0, 2.0], step=5))
    clock_set_back = {"time": np.array([0.0, 0.0])}
    append(first, rows([2, 3], [2.5, 3.5], step=9) | clock_set_back)
    read = example_losses.read(first)
    assert (read["id"].tolist(), read["sum"].tolist()) == ([1, 2, 3], [1.0, 2.5, 3.5])
    append(first, rows([3, 4], [30.0, 40.0], step=10, hidden=np.ones(2, np.float32)))
    np.testing.assert_array_equal(example_losses.read(first)["hidden"], [np.nan, np.nan, 1, 1])


def test_a_stream_is_read_up_to_its_torn_last_batch_wherever_it_ends(tmp_path):
    append(tmp_path, *(rows([7 + step], [0.5], step=step) for step in range(3)))
    [path] = example_losses.streams(tmp_path / "example_losses")
    data = path.read_bytes()
    ends = [end for _, end in example_losses._batches(path)]
    for size in (*range(0, ends[0], 50), *range(ends[1], ends[2], 50), ends[2] - 1):
        path.write_bytes(data[:size])
        if size < ends[0]:
            with pytest.raises(InputNotFoundError, match="no per-example losses"):
                example_losses.read(tmp_path)
        else:
            assert example_losses.read(tmp_path)["id"].tolist() == [7, 8]
    example_losses.truncate(tmp_path / "example_losses", 0)
    assert path.stat().st_size == ends[0]
    assert example_losses.read(tmp_path)["id"].tolist() == [7]


def test_a_stream_with_other_columns_or_a_link_is_refused(tmp_path):
    append(tmp_path, {"id": np.arange(2), "step": np.arange(2), "other": np.arange(2)})
    with pytest.raises(DataError, match=r"no column time, sum, mean; it has id, step, other"):
        example_losses.read(tmp_path)
    [path] = example_losses.streams(tmp_path / "example_losses")
    path.unlink()
    append(tmp_path, {"id": np.arange(2), "step": np.arange(2.0)})
    with pytest.raises(DataError, match="no column time, sum, mean; it has id, step"):
        example_losses.truncate(path.parent, 1)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="regular file"):
        example_losses.read(tmp_path)


def test_the_titanic_trains_on_the_chosen_passengers_alone_in_every_copy(tmp_path):
    unselected = make_titanic(tmp_path, prefetch=0)
    passengers = [real_rows()[row] for row in unselected.split.train]
    ids = [row.id for row in passengers]
    costs = np.random.default_rng(0).random(len(ids))
    write_losses(rows(ids, costs), tmp_path / "a.parquet")
    hardest = select("hardest", 25, source=tmp_path / "a.parquet")
    data = make_titanic(tmp_path, prefetch=0, select=hardest)
    expected = np.array(ids)[np.argsort(-costs)][: -(-len(ids) // 4)]
    seen = np.concatenate([batch.example_ids for batch in data.train])
    assert sorted(seen.tolist()) == sorted([*expected, *expected, *expected])
    assert data.fingerprint != unselected.fingerprint
    assert data.tokenizer.fingerprint == unselected.tokenizer.fingerprint
    valid, expected = next(iter(data.valid)), next(iter(unselected.valid))
    np.testing.assert_array_equal(valid.tokens, expected.tokens)


def test_each_round_selects_by_the_losses_of_the_previous_round(tmp_path):
    previous = "data.select={mode: easiest, source: previous}"
    args = ["trainer=distill", "trainer.distillation.rounds=3", previous]
    cfg = OmegaConf.to_container(without_hydra(compose(args)), resolve=True)
    selections = [round_config(cfg, tmp_path, number)["data"]["select"] for number in (1, 2, 3)]
    assert [(select["mode"], select["source"]) for select in selections] == [
        (None, None),
        ("easiest", f"{tmp_path}/rounds/1"),
        ("easiest", f"{tmp_path}/rounds/2"),
    ]
