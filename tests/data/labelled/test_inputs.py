"""The token cache: what is stored is what is read, and a file that is damaged or of other rows is built again."""

import os

import numpy as np
import pytest

from mlxlab.data.labelled.inputs import BLOCK, TokenCache

RNG = np.random.default_rng(0)
SEQUENCES = [RNG.integers(0, 100, RNG.integers(1, 30)).astype(np.int32) for _ in range(BLOCK + 500)]


def open_cache(path, sequences=SEQUENCES, vocab_size=100):
    return TokenCache(
        path, len(sequences), lambda rows: [sequences[row] for row in rows], vocab_size, 30
    )


def assert_holds(cache, sequences=SEQUENCES):
    rows = np.arange(len(sequences))[::-1]
    assert all(map(np.array_equal, cache.take(rows), sequences[::-1]))
    assert cache.lengths.tolist() == [*map(len, sequences)]
    assert cache.take(rows[:1])[0].dtype == np.int32


@pytest.mark.parametrize("vocab_size", [100, 2**16 + 1])
def test_tokens_are_read_back_from_the_file(tmp_path, vocab_size):
    made, found = (open_cache(tmp_path / "a.tokens", vocab_size=vocab_size) for _ in range(2))
    assert (made.outcome, found.outcome) == ("miss", "hit")
    assert_holds(made)
    assert_holds(found)


@pytest.mark.parametrize("damage", ["flip", "truncate", "fewer"])
def test_a_file_that_is_damaged_or_of_other_rows_is_built_again(tmp_path, damage, caplog):
    path = tmp_path / "a.tokens"
    sequences = SEQUENCES
    open_cache(path)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[5000] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-100])
    else:
        sequences = SEQUENCES[:-1]
    cache = open_cache(path, sequences)
    assert cache.outcome == "miss"
    assert "is corrupt" in caplog.text
    assert_holds(cache, sequences)
    assert open_cache(path, sequences).outcome == "hit"


def test_a_process_that_is_killed_leaves_no_file_behind(tmp_path):
    if (child := os.fork()) == 0:
        TokenCache(tmp_path / "a.tokens", 10, lambda rows: os._exit(9), 100, 30)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert open_cache(tmp_path / "a.tokens").outcome == "miss"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tokens"]
