"""A hundred thousand files: opened, read once each, any place reached."""

import sys

import pytest

from support.streams import open_source
from support.text import documents_of

pytestmark = pytest.mark.fault_injection
COUNT = 100_000
WINDOW = 500


def test_a_hundred_thousand_files_are_read_once_each(tmp_path):
    for number in range(COUNT):
        folder = tmp_path / f"{number // 1000:03}"
        if number % 1000 == 0:
            folder.mkdir()
        (folder / f"{number:06}.txt").write_text(f"document {number}\n")
    source = open_source(str(tmp_path), window=WINDOW)
    assert {int(document.text.split()[1]) for document in documents_of(source)} == set(range(COUNT))
    positions = [position for position, _ in source.windows(0, 0)]
    opened = []

    def note(event, arguments):
        if event == "open" and str(arguments[0]).startswith(str(tmp_path)):
            opened.append(arguments[0])

    sys.addaudithook(note)
    next(source.windows(0, 0, positions[-1]))
    assert 0 < len(opened) < COUNT / 100  # The last window is read, no other one.
