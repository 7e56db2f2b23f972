"""A hundred thousand files: opened, read once each, any place reached."""

import time

import pytest

from support.streams import open_source
from support.text import documents_of

pytestmark = pytest.mark.fault_injection
COUNT = 100_000


def test_a_hundred_thousand_files_are_read_once_each(tmp_path):
    for number in range(COUNT):
        folder = tmp_path / f"{number // 1000:03}"
        if number % 1000 == 0:
            folder.mkdir()
        (folder / f"{number:06}.txt").write_text(f"document {number}\n")
    began = time.process_time()
    source = open_source(str(tmp_path))
    assert time.process_time() - began < 5
    assert {int(document.text.split()[1]) for document in documents_of(source)} == set(range(COUNT))
    positions = [position for position, _ in source.windows(0, 0)]
    began = time.process_time()
    next(source.windows(0, 0, positions[-1]))
    assert time.process_time() - began < 1
