"""The header of a GGUF file, checked against its size: MLX's reader follows every length and offset in it unchecked."""

import mmap
import struct
from math import prod
from pathlib import Path
from typing import NamedTuple

from mlxlab.errors import DataError
from mlxlab.files.untrusted import open_regular

VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 2**20
STRING, ARRAY, UINT32 = 8, 9, 4  # types of metadata
SCALAR_BYTES = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # by type of metadata
BLOCKS = {  # type of a tensor -> numbers in a block, bytes of a block
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    30: (1, 2),
}
BFLOAT16 = 30


class Tensor(NamedTuple):
    """Where an array stands in a file; the dimensions of its shape are those of the file, the last one outermost."""

    name: str
    kind: int
    shape: list[int]
    offset: int  # in bytes


def read_header(path: Path) -> list[Tensor]:
    """The arrays of a GGUF file.

    Raises DataError unless all of its lengths, types and offsets lie within it, and as `open_regular`.
    """
    with open_regular(path) as file:
        magic = file.read(4)
        if magic != b"GGUF":
            raise DataError(f"{path}: not a GGUF file (it begins with {magic!r})")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Header(data).read()
            except (_Fault, struct.error) as error:
                reason = error if isinstance(error, _Fault) else "its header is cut off"
                raise DataError(f"{path}: not a valid GGUF file ({reason})") from None


class _Fault(ValueError):
    """What is wrong with a header."""


class _Header:
    """A position in a header, which moves with everything that is read."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.size, self.position = data, len(data), 4
        self.alignment = 32

    def read(self) -> list[Tensor]:
        version = self.number("I")
        num_tensors = self.number("Q")
        num_keys = self.number("Q")
        if version not in VERSIONS:
            raise _Fault(f"version {version}, expected 2 or 3")
        for _ in range(num_keys):  # ends at the end of the file, whatever the number
            key = self.string()
            kind = self.number("I")
            if key == b"general.alignment":
                self.read_alignment(kind)
            else:
                self.skip_value(kind)
        tensors = [self.tensor() for _ in range(min(num_tensors, self.size))]
        start = -(-self.position // self.alignment) * self.alignment
        tensors = [tensor._replace(offset=start + tensor.offset) for tensor in tensors]
        if (end := max(map(_end, tensors), default=0)) > self.size:
            raise _Fault(f"its tensors end at byte {end}, the file at {self.size}")
        return tensors

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.position)
        self.position += struct.calcsize(f"<{code}")
        return int(value)

    def string(self) -> bytes:
        length = self.number("Q")
        first = self.position
        self.skip(length)
        return self.data[first : self.position]

    def skip(self, length: int) -> None:
        if length > self.size - self.position:
            raise _Fault(f"a value of {length} bytes at byte {self.position} of {self.size}")
        self.position += length

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.skip(self.number("Q"))
        elif kind != ARRAY:
            self.skip(_scalar_bytes(kind))
        elif (items := self.number("I")) == STRING:
            for _ in range(self.number("Q")):
                self.skip(self.number("Q"))
        else:
            self.skip(_scalar_bytes(items) * self.number("Q"))

    def read_alignment(self, kind: int) -> None:
        self.alignment = self.number("I") if kind == UINT32 else 0
        if not 1 <= self.alignment <= MAX_ALIGNMENT or self.alignment & (self.alignment - 1):
            raise _Fault(
                f"general.alignment, expected a power of two up to {MAX_ALIGNMENT} of type uint32"
            )

    def tensor(self) -> Tensor:
        """The next tensor, with its offset behind the header."""
        full_name = self.string().decode("utf-8", errors="replace")
        num_dimensions = self.number("I")
        name = full_name[:60]
        if num_dimensions > MAX_DIMENSIONS:
            raise _Fault(
                f"{name!r} has {num_dimensions} dimensions, expected at most {MAX_DIMENSIONS}"
            )
        shape = [self.number("Q") for _ in range(num_dimensions)]
        kind = self.number("I")
        offset = self.number("Q")
        if kind not in BLOCKS:
            raise _Fault(f"{name!r} is of an unsupported type ({kind})")
        numbers, _ = BLOCKS[kind]
        if not all(1 <= size < 2**31 for size in shape) or (shape[0] if shape else 1) % numbers:
            raise _Fault(f"{name!r} has the shape {shape}, expected rows in blocks of {numbers}")
        if offset % self.alignment:
            raise _Fault(
                f"{name!r} begins at byte {offset}, expected a multiple of {self.alignment}"
            )
        return Tensor(full_name, kind, shape, offset)


def _end(tensor: Tensor) -> int:
    numbers, block_bytes = BLOCKS[tensor.kind]
    return tensor.offset + prod(tensor.shape) // numbers * block_bytes


def _scalar_bytes(kind: int) -> int:
    if kind not in SCALAR_BYTES:
        raise _Fault(f"metadata of an unsupported type ({kind})")
    return SCALAR_BYTES[kind]
