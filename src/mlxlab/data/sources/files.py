"""The files that a path, folder or glob names, and their bytes: decompressed, as UTF-8, from any offset."""

import codecs
import io
import lzma
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import xxhash

from mlxlab.data.sources.messages import first_line
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.terminal.nearest import nearest_path

CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
FORMATS = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")
GLOB_CHARACTERS = "*?["
HASHED_BYTES = 2**28  # If all files together are larger, they are sampled.
SAMPLE = 2**16
SAMPLES = 64  # pieces that are hashed of a sampled file
MAX_SAMPLED_FILES = 1000
READ_BYTES = 2**16
UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UTF8_NAMES = ("utf-8", "utf-8-sig")
UNREADABLE = (OSError, EOFError, lzma.LZMAError, UnicodeError)


class Files:
    """Regular files of one format in the order of their names; a change during the run is an error."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.names = list(names)
        self.paths = [root / name for name in names]
        self.name = self.path(0)
        if len(self.names) > 1:
            self.name = f"{root} ({len(self.names)} files)"
        self.format, self.codec = split_suffix(self.names[0])
        self.states = [self._state(index) for index in range(len(self.names))]
        self.sizes = [size for size, _ in self.states]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """The path, printable in messages whatever the bytes of the name."""
        return os.fsencode(self.paths[index]).decode("utf-8", "replace")

    def open(self, index: int) -> io.BufferedReader:
        """Opens a file that has not changed since the run began."""
        self.check(index)
        try:
            return io.BufferedReader(io.FileIO(self.paths[index]), READ_BYTES)
        except OSError as error:
            raise _unreadable(self.path(index), error) from None

    def check(self, index: int) -> None:
        """Raises DataError if a file was written to, replaced or deleted since the run began."""
        try:
            is_same = self._state(index) == self.states[index]
        except InputNotFoundError:
            is_same = False
        if not is_same:
            raise DataError(f"{self.path(index)}: changed during the run")

    def fingerprint(self) -> str:
        """A hash of names, sizes and content, sampled in large files; moving the folder keeps it."""
        names = [Path(self.names[0]).suffix] if len(self) == 1 else self.names
        digest = xxhash.xxh3_64()
        for name, size in zip(names, self.sizes, strict=True):
            digest.update(os.fsencode(name) + b"\0%d\0" % size)
        is_sampled = sum(self.sizes) > HASHED_BYTES
        step = -(-len(self) // MAX_SAMPLED_FILES) if is_sampled else 1
        for index in range(0, len(self), step):
            with self.open(index) as file:
                for offset in _sample_offsets(self.sizes[index], is_sampled):
                    file.seek(offset)
                    digest.update(file.read(SAMPLE))
        return digest.hexdigest()

    def _state(self, index: int) -> tuple[int, int]:
        """Size and time of the last change."""
        path = self.path(index)
        try:
            state = os.stat(self.paths[index])
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None
        if not stat.S_ISREG(state.st_mode):
            raise InputNotFoundError(f"{path}: expected a regular file")
        return state.st_size, state.st_mtime_ns


def find_files(source: str) -> Files:
    """The files that a path, folder or glob names, without hidden files and links to folders.

    Raises:
        InputNotFoundError: no file matches, or one is not a regular file.
        DataError: files of several formats.
    """
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        root = path
        pattern = "**/*"
    elif os.path.lexists(path):  # A dangling link is refused by its name.
        return Files(path.parent, [path.name])
    elif is_glob(source):
        root = path
        while is_glob(str(root)):
            root = root.parent
        pattern = str(path.relative_to(root))
    else:
        raise InputNotFoundError(f"{source}: no such file or folder{nearest_path(path)}")
    matches = sorted(_find(root, pattern))
    if not matches:
        raise InputNotFoundError(f"{source}: no file that ends in {', '.join(FORMATS)}")
    kinds = sorted({"".join(split_suffix(name)) for name in matches})
    if len(kinds) > 1:
        raise DataError(f"{source}: files of several formats: {', '.join(kinds)}")
    return Files(root, matches)


def is_glob(source: str) -> bool:
    return any(sign in source for sign in GLOB_CHARACTERS)


def split_suffix(name: str) -> tuple[str, str]:
    """Format and codec of a name: `.csv`, `.gz`; "" for a format that is unknown, or for no codec."""
    stem, suffix = os.path.splitext(name.lower())
    codec = ""
    if suffix in CODECS:
        codec = suffix
        suffix = os.path.splitext(stem)[1]
    if suffix not in FORMATS:
        suffix = ""
    return suffix, codec


class ByteStream:
    """The bytes of a text file: decompressed, as UTF-8, without byte order mark.

    Seeking is free in plain files of UTF-8; in others what precedes is unpacked again, at some
    300 MB/s, and not parsed.
    """

    def __init__(
        self, file: io.BufferedReader, path: str, codec: str, encoding: str | None
    ) -> None:
        self.file = file
        self.path = path
        self.offset = 0
        self.stream = _decompressed(file, codec)
        start = self.peek()
        if encoding is None and start.startswith(UTF16_BOMS):
            encoding = "utf-16"
        is_recoded = encoding is not None and codecs.lookup(encoding).name not in UTF8_NAMES
        if is_recoded:
            decoded = pa.PythonFile(self.stream, "r")
            recoded = pa.transcoding_input_stream(decoded, encoding, "utf-8")
            self.stream = io.BufferedReader(recoded, READ_BYTES)
            start = self.peek()
        self.is_plain = not (codec or is_recoded)
        if start.startswith(codecs.BOM_UTF8):
            self.read(len(codecs.BOM_UTF8))
        self.begin = self.offset
        if bytes(2) in (start[0:4:2], start[1:4:2]):
            ways = "data.reading.encoding=utf-16-le or utf-16-be reads UTF-16"
            raise DataError(f"{path}:1:1: NUL bytes, expected text; {ways}")

    def peek(self) -> bytes:
        """The next bytes, READ_BYTES of them where the file has that many."""
        with self._named_faults():
            return self.stream.peek(READ_BYTES)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; raises DataError where the file cannot be unpacked or decoded."""
        with self._named_faults():
            data = self.stream.read(size)
        self.offset += len(data)
        return data

    def read_line(self, size: int) -> bytes:
        """The bytes up to and with the next line break, at most `size`."""
        with self._named_faults():
            data = self.stream.readline(size)
        self.offset += len(data)
        return data

    def seek(self, offset: int) -> None:
        if self.is_plain:
            self.offset = self.stream.seek(offset)
        while self.offset < offset:
            if not self.read(min(offset - self.offset, READ_BYTES)):
                raise DataError(f"{self.path}: the saved position is behind the end of the file")

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file that were read so far."""
        return os.lseek(self.file.fileno(), 0, os.SEEK_CUR)

    @contextmanager
    def _named_faults(self) -> Iterator[None]:
        try:
            yield
        except UNREADABLE as error:
            where = f"{self.path}: after {self.offset:,} bytes"
            raise DataError(f"{where}: {first_line(error)}") from None


def _decompressed(file: io.BufferedReader, codec: str) -> io.BufferedReader:
    if not codec:
        return file
    if codec == ".xz":
        return io.BufferedReader(lzma.LZMAFile(file), READ_BYTES)
    return io.BufferedReader(pa.CompressedInputStream(file.raw, CODECS[codec]), READ_BYTES)


def _sample_offsets(size: int, is_sampled: bool) -> Iterable[int]:
    """Where the pieces of a file begin that are hashed: all, or evenly spaced ones with both ends."""
    if not is_sampled or size <= SAMPLES * SAMPLE:
        return range(0, size, SAMPLE)
    return ((size - SAMPLE) * number // (SAMPLES - 1) for number in range(SAMPLES))


def _unreadable(path: str, error: OSError | ValueError) -> InputNotFoundError:
    reason = getattr(error, "strerror", None) or error
    return InputNotFoundError(f"{path}: cannot be read: {reason}")


def _find(root: Path, pattern: str) -> Iterator[str]:
    """The names below a folder that match and end as a format does."""
    for match in root.glob(pattern):
        name = str(match.relative_to(root))
        is_hidden = "/." in f"/{name}"
        if split_suffix(name)[0] and not is_hidden and not match.is_dir():
            yield name
