"""The files of a text source: regular files with a fingerprint, whose changes during the run are detected."""

import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xxhash

from mlxlab.data.input_files import describe_file_type
from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.nearest import nearest_path

ROW_SUFFIXES = tuple(
    f".{kind}{codec}" for kind in ("csv", "tsv", "jsonl") for codec in (".gz", ".zst", "")
)
ROW_SUFFIXES += (".parquet",)
SUFFIXES = (*ROW_SUFFIXES, ".txt")
SAMPLE_BYTES = 2**16  # hashed at each end of a file
MAX_SAMPLED_FILES = 1000  # evenly spaced among all files
GLOB_CHARACTERS = "*?["


class FileSet:
    """Files in the order of their names relative to `root`."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root, self.names = root, names
        self.name = self.path(0) if len(names) == 1 else f"{root} ({len(names)} files)"
        try:
            states = [os.stat(os.path.join(root, name)) for name in names]
        except OSError as error:
            raise InputNotFoundError(f"{error.filename}: {error.strerror}") from None
        for name, state in zip(names, states, strict=True):
            if not stat.S_ISREG(state.st_mode):
                kind = describe_file_type(state.st_mode)
                raise InputNotFoundError(
                    f"{os.path.join(root, name)} is {kind}, expected a regular file"
                )
        self.sizes = np.array([state.st_size for state in states], np.int64)
        self._mtimes = np.array([state.st_mtime_ns for state in states], np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """The path, printable for messages whatever the bytes of the name."""
        return os.fsencode(Path(self._full_path(index))).decode("utf-8", "replace")

    def first_nonempty(self) -> int:
        return int((self.sizes > 0).argmax())

    def line(self, index: int, offset: int) -> str:
        """path:line of a byte, for messages: reads the file up to it."""
        lines, remaining = 1, offset
        with self.open(index) as file:
            while remaining > 0 and (block := file.read(min(remaining, 2**20))):
                lines, remaining = lines + block.count(b"\n"), remaining - len(block)
        return f"{self.path(index)}:{lines}"

    @contextmanager
    def open(self, index: int) -> Iterator[io.BufferedReader]:
        """Opens a file. Raises DataError if it changes before or during its use, InputNotFoundError if unreadable."""
        try:
            handle = os.open(self._full_path(index), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(handle, "rb") as file:
                self._compare(index, os.fstat(handle))
                yield file
        except OSError as error:
            raise self._read_error(index, error) from None
        except Exception:  # report a changed file rather than the parse error that it causes
            self.check(index)
            raise
        self.check(index)

    def check(self, index: int) -> None:
        """Raises DataError if a file was deleted, replaced or written to since the run began."""
        try:
            self._compare(index, os.stat(self._full_path(index)))
        except OSError as error:
            raise self._read_error(index, error) from None

    def digest(self) -> str:
        """A hash of names, sizes and all bytes, at some GB/s; moving the folder does not change it."""
        digest = xxhash.xxh3_128(repr([self._relevant_names(), self.sizes.tolist()]).encode())
        for index in range(len(self)):
            with self.open(index) as file:
                while block := file.read(2**20):
                    digest.update(block)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """A hash of names and sizes, and of both ends of at most 1,000 files; moving the folder does not change it."""
        digest = xxhash.xxh3_64()
        for name, size in zip(self._relevant_names(), self.sizes, strict=True):
            digest.update(os.fsencode(name) + b"\0%d\0" % size)
        for index in range(0, len(self), -(-len(self) // MAX_SAMPLED_FILES)):
            with self.open(index) as file:
                digest.update(file.read(SAMPLE_BYTES))
                file.seek(max(SAMPLE_BYTES, int(self.sizes[index]) - SAMPLE_BYTES))
                digest.update(file.read(SAMPLE_BYTES))
        return digest.hexdigest()

    def _relevant_names(self) -> list[str]:
        return (
            self.names if len(self) > 1 else [Path(self.names[0]).suffix]
        )  # one file may be renamed

    def _read_error(self, index: int, error: OSError) -> UserError:
        if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP:
            return DataError(f"{self.path(index)}: changed during the run: {error.strerror}")
        return InputNotFoundError(f"{self.path(index)}: cannot be read: {error.strerror}")

    def _full_path(self, index: int) -> str:
        return os.path.join(self.root, self.names[index])

    def _compare(self, index: int, state: os.stat_result) -> None:
        expected = (self.sizes[index], self._mtimes[index])
        if not stat.S_ISREG(state.st_mode) or (state.st_size, state.st_mtime_ns) != expected:
            change = f"it was replaced or written to ({expected[0]} bytes at the start, {state.st_size} now)"
            raise DataError(f"{self.path(index)}: changed during the run: {change}")


def find_files(source: str, suffixes: Sequence[str] = SUFFIXES) -> FileSet:
    """The files that a path, folder or glob names, without hidden ones, other suffixes, and links to folders.

    Raises:
        InputNotFoundError: no file matches, or one is not a regular file.
        DataError: files of several formats.
    """
    path = Path(os.path.expanduser(source))
    if (
        os.path.lexists(path) and not path.is_dir()
    ):  # also a dangling link, which is refused by name
        return FileSet(path.parent, [path.name])
    if path.is_dir():
        root, names = path, _walk(path)
    elif any(sign in source for sign in GLOB_CHARACTERS):
        root, names = _glob(path)
    else:
        raise InputNotFoundError(f"{source}: no such file or folder{nearest_path(path)}")
    formats = {name: suffix for name in sorted(names) if (suffix := suffix_of(name)) in suffixes}
    if not formats:
        other = f" (of {len(names)} files)" if names else ""
        raise InputNotFoundError(f"{source}: no file that ends in {', '.join(suffixes)}{other}")
    if len(kinds := sorted(set(formats.values()))) > 1:
        raise DataError(
            f"{source}: files of several formats ({', '.join(kinds)}): expected one, such as *{kinds[0]}"
        )
    return FileSet(root, list(formats))


def suffix_of(name: str) -> str:
    """The suffix of `name` among `SUFFIXES`, "" for none of them."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")


def _walk(root: Path) -> list[str]:
    def refuse(error: OSError) -> None:
        raise InputNotFoundError(f"{error.filename}: {error.strerror}")

    names = []
    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = "" if folder == str(root) else os.path.relpath(folder, root)
        names += [os.path.join(relative, name) for name in files if not name.startswith(".")]
    return names


def _glob(path: Path) -> tuple[Path, list[str]]:
    fixed = next(
        n
        for n, component in enumerate(path.parts)
        if any(sign in component for sign in GLOB_CHARACTERS)
    )
    root = Path(*path.parts[:fixed])
    if not root.is_dir():
        raise InputNotFoundError(f"{path}: {root} is not a folder{nearest_path(root)}")
    matches = root.glob(str(Path(*path.parts[fixed:])))
    names = [
        str(entry.relative_to(root))
        for entry in matches
        if not entry.name.startswith(".") and not entry.is_dir()
    ]
    return root, names
