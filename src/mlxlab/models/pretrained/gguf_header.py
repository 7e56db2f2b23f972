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
}  # type of metadata -> bytes
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
    offset: int  # bytes


def read_header(path: Path) -> list[Tensor]:
    """The arrays of a GGUF file.

    Raises DataError unless all of its lengths, types and offsets lie within it, and as `open_regular`.
    """
    with open_regular(path) as file:
        if file.read(4) != b"GGUF":
            raise DataError(f"{path}: not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Header(data).read()
            except (ValueError, struct.error) as error:
                raise DataError(f"{path}: not a valid GGUF file ({error})") from None


class _Header:
    """A position in a header, which moves with everything that is read; ValueError where the file ends before."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 4
        self.alignment = 32

    def read(self) -> list[Tensor]:
        version = self.number("I")
        num_tensors = self.number("Q")
        num_keys = self.number("Q")
        _require(version in VERSIONS, f"version {version}, expected 2 or 3")
        for _ in range(num_keys):  # ends at the end of the file, whatever the number
            key = self.string()
            kind = self.number("I")
            if key == b"general.alignment":
                self.alignment = self.number("I") if kind == UINT32 else 0
            else:
                self.skip_value(kind)
        is_power = self.alignment > 0 and self.alignment & (self.alignment - 1) == 0
        _require(is_power and self.alignment <= MAX_ALIGNMENT, f"alignment {self.alignment}")
        tensors = [self.tensor() for _ in range(min(num_tensors, len(self.data)))]
        start = -(-self.position // self.alignment) * self.alignment
        for tensor in tensors:
            numbers, block_bytes = BLOCKS[tensor.kind]
            end = start + tensor.offset + prod(tensor.shape) // numbers * block_bytes
            _require(end <= len(self.data), f"{tensor.name[:60]!r} ends at byte {end}")
        return [tensor._replace(offset=start + tensor.offset) for tensor in tensors]

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
        _require(length <= len(self.data) - self.position, f"{length} bytes at {self.position}")
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

    def tensor(self) -> Tensor:
        """The next tensor, with its offset behind the header."""
        name = self.string().decode("utf-8", errors="replace")
        num_dimensions = self.number("I")
        _require(num_dimensions <= MAX_DIMENSIONS, f"{num_dimensions} dimensions")
        shape = [self.number("Q") for _ in range(num_dimensions)]
        kind = self.number("I")
        offset = self.number("Q")
        _require(kind in BLOCKS, f"{name[:60]!r} is of an unsupported type ({kind})")
        row = shape[0] if shape else 1
        fits = all(1 <= size < 2**31 for size in shape) and row % BLOCKS[kind][0] == 0
        _require(fits and offset % self.alignment == 0, f"{name[:60]!r} of {shape} at {offset}")
        return Tensor(name, kind, shape, offset)


def _scalar_bytes(kind: int) -> int:
    _require(kind in SCALAR_BYTES, f"metadata of an unsupported type ({kind})")
    return SCALAR_BYTES[kind]


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise ValueError(fault)
