"""Unpacks the old stores that tests migrate."""

import tarfile
from pathlib import Path


def unpack(folder: Path) -> Path:
    """Writes a folder per store below `folder`, and returns that."""
    with tarfile.open(Path(__file__).with_name("stores.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    return folder
