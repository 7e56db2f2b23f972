"""The files that a path, folder or glob names, and their bytes: decompressed, as UTF-8, from any offset."""

import codecs
import io
import lzma
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeVar

import pyarrow as pa
import xxhash

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.nearest import nearest_path

CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
FORMATS = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", ".feather")
GLOB_CHARACTERS = "*?["
HASHED_BYTES = 2**28  # of all files: larger ones are sampled
SAMPLE = 2**16
SAMPLES = 64  # of a file
MAX_SAMPLED_FILES = 1000
READ_BYTES = 2**18
BOMB_MIN_BYTES = 2**26  # more, and more than BOMB_MIN_RATIO times the stored bytes, is a bomb
BOMB_MIN_RATIO = 250
SIGNATURES = {
    b"\x89PNG": "a PNG image",
    b"\x1f\x8b": "gzip data: unpack it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "zstd data: unpack it first",
    b"%PDF": "a PDF document",
    b"PAR1": "a parquet file",
    b"ARROW1": "an Arrow file",
    bytes(4): "binary data (NUL bytes)",
}
MARKUP = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

T = TypeVar("T")
Decoder: TypeAlias = codecs.IncrementalDecoder | io.IncrementalNewlineDecoder


class Files:
    """Regular files of one format in the order of their names; a change during the run is an error."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = list(names)
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
        return os.fsencode(self._full_path(index)).decode("utf-8", "replace")

    def open(self, index: int) -> io.BufferedReader:
        """Opens a file that has not changed since the run began."""
        self.check(index)
        try:
            return io.BufferedReader(io.FileIO(self._full_path(index)), READ_BYTES)
        except OSError as error:
            raise _unreadable(self.path(index), error) from None

    def check(self, index: int) -> None:
        """Raises DataError if a file was written to, replaced or deleted since the run began."""
        try:
            state = self._state(index)
        except InputNotFoundError as error:
            raise DataError(f"{self.path(index)}: changed during the run: {error}") from None
        if state != self.states[index]:
            sizes = f"{self.states[index][0]} bytes at the start, {state[0]} now"
            raise DataError(f"{self.path(index)}: changed during the run ({sizes})")

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
                for piece in _samples(file, self.sizes[index], is_sampled):
                    digest.update(piece)
        return digest.hexdigest()

    def nonempty(self) -> list[int]:
        return [index for index, size in enumerate(self.sizes) if size]

    def _full_path(self, index: int) -> Path:
        return self.root / self.names[index]

    def _state(self, index: int) -> tuple[int, int]:
        """Size and time of the last change."""
        try:
            state = os.stat(self._full_path(index))
        except (OSError, ValueError) as error:
            raise _unreadable(self.path(index), error) from None
        if not stat.S_ISREG(state.st_mode):
            kind = describe_file_type(state.st_mode)
            raise InputNotFoundError(f"{self.path(index)} is {kind}, expected a regular file")
        return state.st_size, state.st_mtime_ns


def find_files(source: str) -> Files:
    """The files that a path, folder or glob names, without hidden files and links to folders.

    Raises:
        InputNotFoundError: no file matches, or one is not a regular file.
        DataError: files of several formats.
    """
    path = Path(os.path.expanduser(source))
    is_glob = any(sign in source for sign in GLOB_CHARACTERS)
    if os.path.lexists(path) and not path.is_dir():  # A dangling link is refused by its name.
        return Files(path.parent, [path.name])
    if path.is_dir():
        root = path
        names = list(_walk(path))
    elif is_glob:
        root, names = _glob(path)
    else:
        raise InputNotFoundError(f"{source}: no such file or folder{nearest_path(path)}")
    matches = sorted(name for name in names if split_suffix(name)[0])
    if not matches:
        expected = ", ".join(FORMATS)
        raise InputNotFoundError(f"{source}: no file that ends in {expected} (of {len(names)})")
    kinds = sorted({"".join(split_suffix(name)) for name in matches})
    if len(kinds) > 1:
        listed = ", ".join(kinds)
        raise DataError(f"{source}: files of several formats ({listed}), expected one")
    return Files(root, matches)


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


def refuse_bomb(decoded: int, stored: int) -> None:
    """Raises OSError if the stored bytes are too few for the decoded bytes."""
    if decoded > BOMB_MIN_BYTES and decoded > BOMB_MIN_RATIO * stored:
        raise OSError(f"{decoded} bytes out of {stored}: a decompression bomb")


def read_from(source: str, items: Iterable[T]) -> Iterator[T]:
    """The items; raises InputNotFoundError where reading one raises OSError, which is no fault of who writes them."""
    try:
        yield from items
    except OSError as error:
        raise InputNotFoundError(f"{error.filename or source}: {error.strerror or error}") from None


def describe_binary(start: bytes) -> str:
    """What a file that starts with the signature of a format is, with its article; else ""."""
    for signature, name in SIGNATURES.items():
        if start.startswith(signature):
            return name
    return ""


def describe_start(start: bytes) -> str:
    """What a file that starts like this is, unless it may be rows of text in UTF-8."""
    if description := describe_binary(start):
        return description
    if start[:1] == b"\0" or start[1:2] == b"\0":
        return "UTF-16 without a byte order mark: data.reading.encoding=utf-16-le reads it"
    if MARKUP.match(start.removeprefix(codecs.BOM_UTF8)):
        return "an HTML or XML page"
    return ""


def describe_file_type(mode: int) -> str:
    """The kind of a file that is not regular, with its article."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


class ByteStream:
    """The bytes of a text file: decompressed, as UTF-8, without byte order mark, LF for a lone CR.

    Seeking is free in plain files of UTF-8; in others what precedes is unpacked again, at some
    300 MB/s, and not parsed.
    """

    def __init__(
        self, file: io.BufferedReader, path: str, codec: str, encoding: str | None
    ) -> None:
        self.file = file
        self.path = path
        self.codec = codec
        self.offset = 0
        self.stream = _decompressed(file, codec)
        start = self.peek()
        if encoding is None and start.startswith(UTF16_BOMS):
            encoding = "utf-16"
        is_recoded = encoding is not None and not _is_utf8_name(encoding)
        self.is_plain = not codec and not is_recoded
        if encoding is not None and is_recoded:
            self._refuse_utf8(start, encoding)
            self._recode(codecs.getincrementaldecoder(encoding)())
            start = self.peek()
        if b"\r" in start and b"\n" not in start:
            decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
            self._recode(io.IncrementalNewlineDecoder(decoder, translate=True))
            self.is_plain = False
        if start.startswith(codecs.BOM_UTF8):
            self.read(len(codecs.BOM_UTF8))
        self.begin = self.offset

    def peek(self) -> bytes:
        """The next bytes, READ_BYTES of them where the file has that many."""
        try:
            return self.stream.peek(READ_BYTES)
        except UNREADABLE as error:
            raise self._fault(error) from None

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; raises DataError where the file cannot be unpacked or decoded."""
        try:
            data = self.stream.read(size)
            self._advance(data)
            return data
        except UNREADABLE as error:
            raise self._fault(error) from None

    def read_line(self, size: int) -> bytes:
        """The bytes up to and with the next line break, at most `size`."""
        try:
            data = self.stream.readline(size)
            self._advance(data)
            return data
        except UNREADABLE as error:
            raise self._fault(error) from None

    def seek(self, offset: int) -> None:
        if self.is_plain:
            self.offset = self.stream.seek(offset)
        while self.offset < offset:
            if not self.read(min(offset - self.offset, READ_BYTES)):
                raise DataError(f"{self.path}: the saved position is behind the end of the file")

    def close(self) -> None:
        self.file.close()

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file that were read so far."""
        return os.lseek(self.file.fileno(), 0, os.SEEK_CUR)

    def _advance(self, data: bytes) -> None:
        self.offset += len(data)
        if self.codec and self.offset > BOMB_MIN_BYTES:
            refuse_bomb(self.offset, self.stored_bytes)

    def _recode(self, decoder: Decoder) -> None:
        self.stream = io.BufferedReader(Recoder(self.stream, decoder), READ_BYTES)

    def _refuse_utf8(self, start: bytes, encoding: str) -> None:
        """Refuses another encoding for a file that is UTF-8 as far as its start tells."""
        try:
            codecs.getincrementaldecoder("utf-8")().decode(start)
        except UnicodeDecodeError:
            return
        if not start.isascii():
            got = f"data.reading.encoding={encoding}"
            raise DataError(f"{self.path}:1: this is UTF-8, got {got}; encoding=utf-8 reads it")

    def _fault(self, error: Exception) -> DataError:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        return DataError(f"{self.path}: after {self.offset:,} bytes: {reason}")


UNREADABLE = (OSError, EOFError, lzma.LZMAError, UnicodeError)


class Recoder(io.RawIOBase):
    """The bytes of a stream, decoded and encoded again as UTF-8."""

    def __init__(self, stream: io.BufferedReader, decoder: Decoder) -> None:
        self.stream = stream
        self.decoder = decoder
        self.pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        is_last = False
        while not self.pending and not is_last:
            data = self.stream.read(READ_BYTES)
            is_last = not data
            text = self.decoder.decode(data, is_last)
            self.pending = text.encode(errors="surrogateescape")
        size = min(len(buffer), len(self.pending))
        buffer[:size] = self.pending[:size]
        self.pending = self.pending[size:]
        return size


def _decompressed(file: io.BufferedReader, codec: str) -> io.BufferedReader:
    if not codec:
        return file
    if codec == ".xz":
        return io.BufferedReader(lzma.LZMAFile(file), READ_BYTES)
    return io.BufferedReader(pa.CompressedInputStream(file.raw, CODECS[codec]), READ_BYTES)


def _is_utf8_name(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _samples(file: BinaryIO, size: int, is_sampled: bool) -> Iterator[bytes]:
    """All bytes of a file in pieces, or evenly spaced ones, both ends included."""
    if not is_sampled or size <= SAMPLES * SAMPLE:
        while piece := file.read(2**20):
            yield piece
        return
    for number in range(SAMPLES):
        file.seek((size - SAMPLE) * number // (SAMPLES - 1))
        yield file.read(SAMPLE)


def _unreadable(path: str, error: OSError | ValueError) -> InputNotFoundError:
    reason = getattr(error, "strerror", None) or error
    return InputNotFoundError(f"{path}: cannot be read: {reason}")


def _walk(root: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise _unreadable(str(error.filename), error)

    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), root)


def _glob(path: Path) -> tuple[Path, list[str]]:
    """The folder before the first component with a wildcard, and the names below it that match."""
    is_pattern = [any(sign in part for sign in GLOB_CHARACTERS) for part in path.parts]
    first = is_pattern.index(True)
    root = Path(*path.parts[:first])
    if not root.is_dir():
        raise InputNotFoundError(f"{path}: {root} is no folder{nearest_path(root)}")
    names = []
    for match in root.glob(str(Path(*path.parts[first:]))):
        if not match.name.startswith(".") and not match.is_dir():
            names.append(str(match.relative_to(root)))
    return root, names
