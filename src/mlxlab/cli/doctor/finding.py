"""What a check of the installation found."""

from typing import Literal, TypedDict

Status = Literal["ok", "note", "warning", "error"]


class Finding(TypedDict):
    """One line of the report.

    Attributes:
        check: its name.
        status: a note is worth knowing; with a warning runs are slow, or something does not work; with an error
            training, or what the check is about, does not work.
        value: what was found.
        remedy: what to do about it, "" if nothing.
    """

    check: str
    status: Status
    value: str
    remedy: str


def finding(check: str, value: str, status: Status = "ok", remedy: str = "") -> Finding:
    return Finding(check=check, status=status, value=value, remedy=remedy)
