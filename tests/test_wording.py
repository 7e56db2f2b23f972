"""Counts and shares in sentences."""

from mlxlab.wording import counted, percent


def test_counts_agree_with_their_noun_and_have_separators():
    assert [counted(n, "row") for n in (0, 1, 2, 1309)] == ["0 rows", "1 row", "2 rows", "1,309 rows"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def test_shares_have_a_space_before_the_sign():
    assert (percent(0.0944), percent(0.37, 0)) == ("9.4 %", "37 %")
