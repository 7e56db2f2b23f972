"""The files of a text source: found, checked to be regular files, fingerprinted, watched while they are read."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xxhash

from mlxlab.data.input_files import describe_file_type, suggest_file
from mlxlab.errors import DataError, InputNotFoundError, UserError

SAMPLE = 2**16  # bytes of head and of tail that are hashed
SAMPLED = 1000  # files whose content is sampled, if there are more: evenly spread ones
WILD = "*?["


class FileSet:
    """Files in the order of their names relative to `root`.

    Names and sizes of all, and head and tail of at most 1,000 of them make the fingerprint: moving the folder does not
    change it.
    """

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root, self.names = root, names
        self.name = self.path(0) if len(names) == 1 else f"{root} ({len(names)} files)"
        states = [_regular(os.path.join(root, name)) for name in names]
        self.sizes = np.array([state.st_size for state in states], np.int64)
        self._changed = np.array([state.st_mtime_ns for state in states], np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """For messages: printable, whatever the bytes of the name."""
        return os.fsencode(self._at(index)).decode("utf-8", "replace")

    def line(self, index: int, offset: int) -> str:
        """path:line of a byte; reads the file up to there, so only for messages."""
        lines, left = 1, offset
        with self.open(index) as file:
            while left > 0 and (block := file.read(min(left, 2**20))):
                lines, left = lines + block.count(b"\n"), left - len(block)
        return f"{self.path(index)}:{lines}"

    @contextmanager
    def open(self, index: int) -> Iterator[BinaryIO]:
        """Opens a shard; once it was used, makes sure that it is what it was when the run began.

        Raises:
            DataError: it was deleted, replaced or written to.
            InputNotFoundError: it may not or cannot be read.
        """
        try:
            handle = os.open(self._at(index), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self._fault(index, error) from None
        with open(handle, "rb") as file:
            self._compare(index, os.fstat(handle))
            try:
                yield file
            except OSError as error:
                raise self._fault(index, error) from None
            except Exception:  # malformed for having changed: that is said first
                self.check(index)
                raise
            self.check(index)

    def check(self, index: int) -> None:
        """Makes sure that a shard is what it was when the run began.

        Raises:
            DataError: it was deleted, replaced or written to.
        """
        try:
            self._compare(index, os.stat(self._at(index)))
        except OSError as error:
            raise self._fault(index, error) from None

    def fingerprint(self) -> str:
        """16 hexadecimal digits."""
        digest = xxhash.xxh3_64()
        names = self.names if len(self) > 1 else [Path(self.names[0]).suffix]  # one file may be renamed
        for name, size in zip(names, self.sizes, strict=True):
            digest.update(os.fsencode(name) + b"\0%d\0" % size)
        for index in range(0, len(self), -(-len(self) // SAMPLED)):
            with self.open(index) as file:
                digest.update(file.read(SAMPLE))
                file.seek(max(SAMPLE, int(self.sizes[index]) - SAMPLE))
                digest.update(file.read(SAMPLE))
        return digest.hexdigest()

    def _fault(self, index: int, error: OSError) -> UserError:
        if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP:
            return DataError(f"{self.path(index)}: changed during the run: {error.strerror}")
        return InputNotFoundError(f"{self.path(index)}: cannot be read: {error.strerror}")

    def _at(self, index: int) -> str:
        return os.path.join(self.root, self.names[index])

    def _compare(self, index: int, state: os.stat_result) -> None:
        if not stat.S_ISREG(state.st_mode):
            raise DataError(
                f"{self.path(index)}: changed during the run: now it is {describe_file_type(state.st_mode)}"
            )
        if state.st_size != self.sizes[index]:
            sizes = f"{self.sizes[index]} bytes at the start, {state.st_size} now"
            raise DataError(f"{self.path(index)}: changed during the run: {sizes}")
        if state.st_mtime_ns != self._changed[index]:
            raise DataError(f"{self.path(index)}: changed during the run: it was written to")


def find_files(source: str, endings: tuple[str, ...]) -> FileSet:
    """The files that a path, folder (with its subfolders) or glob names; hidden ones and other endings are left out.

    Links to folders are not followed below the folder named.

    Raises:
        InputNotFoundError: nothing is there, or something that is no regular file.
        DataError: files of several formats.
    """
    path = Path(os.path.expanduser(source))
    if os.path.lexists(path) and not path.is_dir():  # also a link that leads nowhere or in circles: it was meant
        return FileSet(path.parent, [path.name])
    if path.is_dir():
        root, names = path, _walk(path)
    elif any(sign in source for sign in WILD):
        root, names = _glob(path)
    else:
        raise InputNotFoundError(f"{source}: no such file or folder{suggest_file(path)}")
    expected = sorted(name for name in names if ending_of(name, endings))
    if not expected:
        other = f" (of {len(names)} files there)" if names else ""
        raise InputNotFoundError(f"{source}: no file that ends in {', '.join(endings)}{other}")
    found = sorted({ending_of(name, endings) for name in expected})
    if len(found) > 1:
        raise DataError(f"{source}: files of several formats ({', '.join(found)}): name one kind, such as *{found[0]}")
    return FileSet(root, expected)


def ending_of(name: str, endings: tuple[str, ...]) -> str:
    """The ending that the name has, "" for none of them."""
    return next((ending for ending in endings if name.lower().endswith(ending)), "")


def _walk(root: Path) -> list[str]:
    found = []
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = "" if folder == str(root) else os.path.relpath(folder, root)
        found += [os.path.join(inside, name) for name in files if not name.startswith(".")]
    return found


def _glob(path: Path) -> tuple[Path, list[str]]:
    fixed = next(n for n, part in enumerate(path.parts) if any(sign in part for sign in WILD))
    root = Path(*path.parts[:fixed])
    if not root.is_dir():
        raise InputNotFoundError(f"{path}: {root} is no folder{suggest_file(root)}")
    found = root.glob(str(Path(*path.parts[fixed:])))
    names = [str(entry.relative_to(root)) for entry in found if not entry.name.startswith(".") and not entry.is_dir()]
    return root, names


def _regular(path: str) -> os.stat_result:
    try:
        state = os.stat(path)
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(state.st_mode):
        raise InputNotFoundError(f"{path} is {describe_file_type(state.st_mode)}, expected a regular file")
    return state


def _refuse(error: OSError) -> None:
    raise InputNotFoundError(f"{error.filename}: {error.strerror}")
