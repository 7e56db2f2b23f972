"""More tokens for a run that is resumed: those of a larger tokenizer."""

from dataclasses import replace
from pathlib import Path

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.data.dataset import DataModule
from mlxlab.data.tokenizers.fit import tokenizer_folder
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import ConfigError, DataError
from mlxlab.experiment.build import Config, saved_tokenizer_dir
from mlxlab.experiment.resume.policy import TOKENIZER, admit_rows
from mlxlab.terminal.messages import log_lines

ROLES = ("pad_id", "bos_id", "eos_id", "mask_id")


def larger_tokenizer(cfg: Config, checkpoint: Checkpoint) -> Path | None:
    """The folder of the tokenizer that an override gives to a resumed run; None if it stays the one of the checkpoint.

    Raises:
        ConfigError: it lacks a token of the run, or has it under another id.
        InputNotFoundError, DataError: there is no valid tokenizer.
    """
    saved = checkpoint.state["metadata"]["config"]["data"].get("tokenizer") or {}
    path = (cfg["data"].get("tokenizer") or {}).get("path")
    if path is None or path == saved.get("path"):
        return None
    folder = tokenizer_folder(path)
    old, new = load_tokenizer(saved_tokenizer_dir(checkpoint)), load_tokenizer(folder)
    if new.fingerprint == old.fingerprint:
        return None
    _check_extends(new, old, f"{TOKENIZER}={path}")
    return folder


def _check_extends(new: Tokenizer, old: Tokenizer, title: str) -> None:
    expected = (
        f"expected the {old.vocab_size} tokens of the run under their ids, and more after them"
    )
    if new.vocab_size <= old.vocab_size:
        raise ConfigError(f"{title}: {expected}; got {new.vocab_size} tokens")
    for token in range(old.vocab_size):
        before, now = old.inner.id_to_token(token), new.inner.id_to_token(token)
        if before != now:
            raise ConfigError(f"{title}: {expected}; token {token} is {now!r}, was {before!r}")
    for role in ROLES:
        id_before, id_now = vars(old)[role], vars(new)[role]
        if id_before not in (None, id_now):
            raise ConfigError(f"{title}: {expected}; its {role} is {id_now}, was {id_before}")


def admit_larger_tokenizer(
    checkpoint: Checkpoint, data: DataModule, *, allow_change: bool
) -> Checkpoint:
    """The checkpoint for the same data in the tokens of a larger tokenizer.

    The position stays at its document and token. Evaluations do not count any more: they are of other tokens.

    Raises:
        NotAllowedError: the data changed.
        ConfigError: the order of the data depends on the number of tokens.
    """
    state = checkpoint.state
    history = replace(state["history"], evaluations=[], best=None, best_step=0, best_metrics={})
    log_lines(
        f"evaluations up to step {checkpoint.step} do not count for the best: they are of the smaller tokenizer"
    )
    checkpoint = replace(checkpoint, state={**state, "history": history})
    # Rows that are held out have the same text; the tokens of all rows are other ones.
    is_same = data.held_out == state["metadata"]["held_out"]
    checkpoint = admit_rows(checkpoint, data.fingerprint, allow_change=is_same or allow_change)
    start = data.train.state_dict()
    try:
        data.train.load_state_dict(checkpoint.state["data"])
    except DataError as error:
        raise ConfigError(
            f"{TOKENIZER}: cannot change with this data.order, which counts tokens ({error})"
        ) from None
    data.train.load_state_dict(start)
    return checkpoint
