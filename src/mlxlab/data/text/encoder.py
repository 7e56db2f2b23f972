"""The saved text encoder of a language model: its tokenizer and its objective."""

from pathlib import Path
from typing import Literal, TypedDict

from mlxlab.data.batch import Task
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import NotAllowedError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.schema.constraints import Size


class EncoderState(TypedDict):
    """The encoder in data.json."""

    format: Literal["mlxlab.text/2"]
    masked: bool
    seq_len: Size
    tokenizer: str  # fingerprint of the tokenizer
    fingerprint: str  # identifies the data for human readers


class TextEncoder:
    """Text and token ids of a language model.

    Args:
        masked: the model predicts masked tokens (an encoder), not the next token (a decoder).
        seq_len: tokens of the blocks that it was trained on.
    """

    def __init__(self, tokenizer: Tokenizer, masked: bool, seq_len: int) -> None:
        self.tokenizer = tokenizer
        self.seq_len = seq_len
        self.task = Task(
            "language_modelling",
            tokenizer.vocab_size,
            masked=masked,
            token_bytes=tokenizer.token_bytes,
        )

    def save(self, folder: Path, fingerprint: str) -> None:
        """Writes tokenizer.json and data.json."""
        self.tokenizer.save(folder)
        state = {
            "format": "mlxlab.text/2",
            "masked": self.task.masked,
            "seq_len": self.seq_len,
            "tokenizer": self.tokenizer.fingerprint,
            "fingerprint": fingerprint,
        }
        write_json(folder / "data.json", state)


def restore(folder: Path) -> TextEncoder:
    """The encoder that `save` wrote. Raises NotAllowedError if the tokenizer is not the saved one."""
    path = folder / "data.json"
    state = read_json(path, EncoderState)
    tokenizer = load_tokenizer(folder)
    if tokenizer.fingerprint != state["tokenizer"]:
        raise NotAllowedError(
            f"{path}: tokenizer.json in this folder is not the one that the model was trained with"
        )
    return TextEncoder(tokenizer, state["masked"], state["seq_len"])
