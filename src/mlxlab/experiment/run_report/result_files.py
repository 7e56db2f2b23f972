"""Files of a run folder that a report reads: generated text, and what the last `verify` of the run found."""

from typing import Literal, TypedDict

SAMPLES, VERIFICATION = "samples.json", "verify.json"


class TextSample(TypedDict):
    """Of `samples.json`, text that a language model generated at the end of its run.

    `prompt` is "" for a new document; `end` is why the text ended: `length`, `end token`, or `time`.
    """

    prompt: str
    text: str
    end: str


class Verification(TypedDict):
    """`verify.json`.

    Attributes:
        steps: of the checkpoints that are bit for bit what training gives.
        difference: what differs first; "" if nothing does.
    """

    format: Literal[1]
    steps: list[int]
    difference: str
