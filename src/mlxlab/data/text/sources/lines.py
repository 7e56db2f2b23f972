"""Lines of plain and compressed files as UTF-8, whatever their encoding, with limits on their size."""

import codecs
import io
import os

from mlxlab.data.sources.files import BOMB_MIN_BYTES, refuse_bomb
from mlxlab.data.text.sources.records import BLOCK, BOM, MAX_RECORD

CODECS = {".gz": "gzip", ".zst": "zstd"}
UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def codec_of(suffix: str) -> str | None:
    """The codec of a compressed suffix: `.csv.gz` is gzip."""
    return CODECS.get(os.path.splitext(suffix)[1])


def _is_utf8(block: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(block)
    except UnicodeDecodeError:
        return False
    return True


class Lines:
    """The decompressed lines of a file as UTF-8, with their offset, and a limit on the size of a record.

    Lines end in LF or CR LF; in a file whose first `BLOCK` bytes hold CR only, in CR.

    Args:
        encoding: of the file; None is UTF-8, or UTF-16 after its byte order mark.

    Raises:
        ValueError: more than `MAX_RECORD` bytes since `record_bytes` was last set to 0.
        OSError: the file is corrupt, truncated, a decompression bomb, or not in its encoding.
    """

    def __init__(
        self, file: io.BufferedReader, codec: str | None, encoding: str | None = None
    ) -> None:
        self.stream, self.file, self.compressed = file, file, codec is not None
        self.offset, self.line, self.record_bytes = 0, 0, 0
        if codec:
            import pyarrow

            self.stream = io.BufferedReader(pyarrow.CompressedInputStream(file.raw, codec), BLOCK)
        start = self._peek()
        self.is_utf8 = not start.isascii() and _is_utf8(start)  # as far as the first block tells
        if encoding is None and start.startswith(UTF16_BOMS):
            encoding = "utf-16"
        self.is_recoded = encoding is not None and codecs.lookup(encoding).name not in (
            "utf-8",
            "utf-8-sig",
        )
        if encoding is not None and self.is_recoded:
            self._recode(codecs.getincrementaldecoder(encoding)(), "utf-8")
            start = self._peek()
        self.start = start
        if b"\r" in start and b"\n" not in start:
            self._recode(
                io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("latin-1")(), True),
                "latin-1",
            )

    def _peek(self) -> bytes:
        try:
            return self.stream.peek(BLOCK)
        except OSError as error:  # to be raised by the first read: a second read of a corrupt stream yields anything
            self.stream = io.BufferedReader(_Unreadable(error))
            return b""

    def _recode(
        self, decoder: codecs.IncrementalDecoder | io.IncrementalNewlineDecoder, encoding: str
    ) -> None:
        self.stream = io.BufferedReader(_Recoder(self.stream, decoder, encoding), BLOCK)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file that were read so far."""
        return os.lseek(self.file.fileno(), 0, os.SEEK_CUR)

    def seek(self, offset: int, line: int) -> None:
        if self.stream.seekable():
            self.offset = self.stream.seek(offset)
        while self.offset < offset and self._advance(
            self.stream.read(min(offset - self.offset, BLOCK))
        ):
            pass
        self.line, self.record_bytes = line, 0

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> bytes:
        data = self._advance(self.stream.readline(MAX_RECORD + 1))
        if not data:
            raise StopIteration
        self.line += 1
        if self.record_bytes > MAX_RECORD:
            while data and not data.endswith(b"\n"):
                data = self._advance(self.stream.readline(MAX_RECORD))
            raise ValueError(
                f"a record of more than {MAX_RECORD} bytes (in CSV perhaps a quote that is never closed)"
            )
        return data.removeprefix(BOM) if self.line == 1 else data

    def _advance(self, data: bytes) -> bytes:
        self.offset += len(data)
        self.record_bytes += len(data)
        if self.compressed and self.offset > BOMB_MIN_BYTES:
            refuse_bomb(self.offset, self.stored_bytes)
        return data


class _Unreadable(io.RawIOBase):
    """A stream whose first read raises an error."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise self.error


class _Recoder(io.RawIOBase):
    """The bytes of a stream, decoded and encoded again."""

    def __init__(
        self,
        stream: io.BufferedReader,
        decoder: codecs.IncrementalDecoder | io.IncrementalNewlineDecoder,
        encoding: str,
    ) -> None:
        self.stream, self.decoder, self.encoding = stream, decoder, encoding
        self.pending, self.ended = b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        while not self.pending and not self.ended:
            data = self.stream.read(BLOCK)
            self.ended = not data
            try:
                self.pending = self.decoder.decode(data, self.ended).encode(self.encoding)
            except UnicodeError as error:
                raise OSError(f"not in its encoding: {error}") from None
        size = min(len(buffer), len(self.pending))
        buffer[:size] = self.pending[:size]
        self.pending = self.pending[size:]
        return size
