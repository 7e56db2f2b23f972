"""`samples.json` of a run folder: text that a language model generated at the end of its run."""

from typing import TypedDict

FILE = "samples.json"


class TextSample(TypedDict):
    """`prompt` is "" for a new document; `end` is why the text ended: `length`, `end token`, or `time`."""

    prompt: str
    text: str
    end: str
