"""Reads FASTA files whose headers are a name and a label: `>s1 bound`."""

from pathlib import Path
from typing import NamedTuple

from mlxlab.errors import DataError, InputNotFoundError

BASES = "ACGTN"  # N is any base


class Record(NamedTuple):
    """A sequence of bases with its label."""

    label: str
    sequence: str


def read_fasta(source: str) -> list[Record]:
    """The records of a file.

    Raises:
        InputNotFoundError: there is no such file.
        DataError: it is malformed, with the line.
    """
    try:
        lines = Path(source).read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise InputNotFoundError(f"{source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not ASCII at byte {error.start}") from None
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        if line.startswith(">"):
            match line[1:].split():
                case [_, label]:
                    records.append(Record(label, ""))
                case _:
                    raise DataError(f"{source}:{number}: expected `>name label`, got {line[:40]!r}")
        elif not records:
            raise DataError(f"{source}:{number}: expected a header `>name label` before the first sequence")
        else:
            records[-1] = Record(records[-1].label, records[-1].sequence + check_bases(line, f"{source}:{number}"))
    return records


def check_bases(text: str, place: str) -> str:
    """The bases in capitals; DataError if there are other letters."""
    bases = text.strip().upper()
    if unknown := set(bases) - set(BASES):
        raise DataError(f"{place}: expected bases ({', '.join(BASES)}), got {min(unknown)!r}")
    return bases
