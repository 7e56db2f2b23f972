"""Counts and shares in sentences."""

import re

from mlxlab.terminal.wording import counted, percent
from support.processes import ROOT


def test_counts_agree_with_their_noun_and_have_separators():
    counts = [counted(n, "row") for n in (0, 1, 2, 1309)]
    assert counts == ["0 rows", "1 row", "2 rows", "1,309 rows"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def test_shares_have_a_space_before_the_sign():
    assert (percent(0.0944), percent(0.37, 0)) == ("9.4 %", "37 %")
    assert (percent(0.0944, signed=True), percent(-0.0944, 2, signed=True)) == ("+9.4 %", "-9.44 %")


def test_shares_are_written_in_one_way_in_messages_and_pages():
    """`9.4 %` everywhere: neither the format of Python nor a sign without its space."""
    code = ("src/**/*.py", "benchmarks/**/*.py")
    pages = ("README.md", "CHANGELOG.md", "docs/**/*.md", "conf/**/*.yaml")
    for pattern in (*code, *pages):
        for file in ROOT.glob(pattern):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"[\d}]%(?![\w%:\]])", text), file
            assert pattern in pages or not re.search(r":[^{}\"' \n]*%\}", text), file
