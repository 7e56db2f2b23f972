"""Counts and shares in sentences."""

import re

from support.processes import ROOT


def test_shares_are_written_in_one_way_in_messages_and_pages():
    """`9.4 %` everywhere: neither the format of Python nor a sign without its space."""
    code = ("src/**/*.py", "benchmarks/**/*.py")
    pages = ("README.md", "CHANGELOG.md", "docs/**/*.md", "conf/**/*.yaml")
    for pattern in (*code, *pages):
        for file in ROOT.glob(pattern):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"[\d}]%(?![\w%:\]])", text), file
            assert pattern in pages or not re.search(r":[^{}\"' \n]*%\}", text), file
