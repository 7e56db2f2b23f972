"""`verify.json` of a run folder: what the last `verify` of the run found."""

from typing import Literal, TypedDict

FILE = "verify.json"


class Verification(TypedDict):
    """`verify.json`.

    Attributes:
        steps: of the checkpoints that are bit for bit what training gives.
        difference: what differs first; "" if nothing does.
    """

    format: Literal[1]
    steps: list[int]
    difference: str
