"""Opens input files that a user names: regular files only, with the nearest existing name where one is not found."""

import os
import re
import stat
from pathlib import Path

from mlxlab.errors import InputNotFoundError
from mlxlab.nearest import nearest_path

MAX_BYTES = 16 * 2**20
SIGNATURES = {
    b"\x89PNG": "a PNG image",
    b"\x1f\x8b": "gzip data: unpack it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "zstd data: unpack it first",
    b"%PDF": "a PDF document",
    b"PAR1": "a parquet file",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}
MARKUP = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)


def read_input_file(path: str | os.PathLike[str]) -> bytes:
    """The first `MAX_BYTES` + 1 bytes of a regular file, so that a longer file can be recognised.

    Raises:
        InputNotFoundError: the file does not exist, may not be read, or is no regular file (then it is not opened).
    """
    name = os.fspath(path)
    if name in ("", "-"):
        raise InputNotFoundError(
            f"{name!r}: standard input cannot be read as a data set, expected a path"
        )
    try:
        mode = os.stat(name).st_mode
        if not stat.S_ISREG(mode):
            raise InputNotFoundError(
                f"{name} is {describe_file_type(mode)}, expected a regular file"
            )
        with open(name, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputNotFoundError(f"{name!r}: {reason}{nearest_path(Path(name))}") from None


def describe_binary(start: bytes) -> str:
    """What a file that starts with the signature of a format is, with its article; "" for any other."""
    signatures = {**SIGNATURES, bytes(4): "binary data (NUL bytes)"}
    return next((name for signature, name in signatures.items() if start.startswith(signature)), "")


def describe_start(start: bytes) -> str:
    """What a file that starts like this is, with its article, unless it may be rows of text in UTF-8."""
    if description := describe_binary(start):
        return description
    if start[:1] == b"\0" or start[1:2] == b"\0":
        return "UTF-16 text without a byte order mark: name its encoding (data.reading.encoding=utf-16-le)"
    return "an HTML or XML page" if MARKUP.match(start.removeprefix(b"\xef\xbb\xbf")) else ""


def describe_file_type(mode: int) -> str:
    """The kind of a file that is not regular, with its article."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
