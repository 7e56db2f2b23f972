"""The saved text encoder of a language model: its tokenizer and its objective."""

import json
from pathlib import Path
from typing import Any

from mlxlab.data.batch import Task
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError

FORMAT = "mlxlab.text/1"


class TextEncoder:
    """Text and token ids of a language model.

    Args:
        masked: whether the model predicts masked tokens (an encoder) or the next token (a decoder).
        seq_len: tokens of the blocks that it was trained on.
    """

    def __init__(self, tokenizer: Tokenizer, masked: bool, seq_len: int) -> None:
        self.tokenizer, self.masked, self.seq_len = tokenizer, masked, seq_len
        self.task = Task("language_modelling", tokenizer.vocab_size, masked=masked, token_bytes=tokenizer.token_bytes)

    def state_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "masked": self.masked,
            "seq_len": self.seq_len,
            "tokenizer": self.tokenizer.fingerprint,
        }

    def save(self, folder: Path, **more: Any) -> None:
        """Writes tokenizer.json and data.json; `more` (JSON) is added for human readers."""
        self.tokenizer.save(folder)
        text = json.dumps(self.state_dict() | more, indent=1)
        (folder / "data.json").write_text(text + "\n", encoding="utf-8")


def restore(folder: Path) -> TextEncoder:
    """The encoder that `save` wrote.

    Raises:
        InputNotFoundError: a file is missing.
        DataError: a file is malformed or of another format.
        NotAllowedError: the tokenizer is not the saved one.
    """
    path = folder / "data.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise DataError(f"{path}:1:1: {state['format']}; expected {FORMAT}")
        tokenizer = load_tokenizer(folder)
        if tokenizer.fingerprint != state["tokenizer"]:
            raise NotAllowedError(
                f"{path}:1:1: tokenizer.json in this folder is not the one that the model was trained with"
            )
        return TextEncoder(tokenizer, bool(state["masked"]), int(state["seq_len"]))
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}:1:1: is damaged ({type(error).__name__}: {str(error)[:100]})") from None
