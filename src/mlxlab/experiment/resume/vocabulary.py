"""More tokens for a run that is resumed: those of a larger tokenizer."""

import shutil
from dataclasses import replace
from pathlib import Path

from mlxlab.checkpoint.names import TOKENIZERS, inference_dir_of
from mlxlab.checkpoint.resume import ResumePolicy
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.data.dataset import DataModule
from mlxlab.data.tokenizers.fit import tokenizer_folder
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import ConfigError, DataError
from mlxlab.experiment.build import Config
from mlxlab.files.atomic import temporary_name
from mlxlab.terminal.messages import log_lines

KEY = "data.tokenizer.path"
ROLES = ("pad_id", "bos_id", "eos_id", "mask_id")


def saved_tokenizer_dir(checkpoint: Checkpoint) -> Path:
    """The folder of the tokenizer with which a checkpoint was saved."""
    return inference_dir_of(
        checkpoint.run_dir / "inference", checkpoint.state["metadata"]["tokenizer"]
    )


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
    _check_extends(new, old, f"{KEY}={path}")
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


def keep_tokenizer(inference_dir: Path, new: Tokenizer) -> None:
    """Keeps the files of the folder for the checkpoints with its tokenizer, where another one replaces it."""
    if not (inference_dir / "tokenizer.json").is_file():
        return
    old = load_tokenizer(inference_dir).fingerprint
    folder = inference_dir / TOKENIZERS / old
    if old == new.fingerprint or folder.is_dir():
        return
    temporary = temporary_name(folder)
    temporary.mkdir(parents=True)
    for path in filter(Path.is_file, inference_dir.iterdir()):
        shutil.copyfile(path, temporary / path.name)
    temporary.rename(folder)


def admit_larger_tokenizer(
    checkpoint: Checkpoint, data: DataModule, policy: ResumePolicy
) -> Checkpoint:
    """The checkpoint for the same data in the tokens of a larger tokenizer.

    The position stays at its document and token. Evaluations do not count any more: they are of other tokens.

    Raises:
        NotAllowedError: the data changed.
        ConfigError: the order of the data depends on the number of tokens.
    """
    state, saved = checkpoint.state, checkpoint.state["metadata"]
    if data.held_out == saved["held_out"]:
        policy = replace(policy, allow_data_change=True)  # the tokens are other ones, at least
    history = replace(state["history"], evaluations=[], best=None, best_step=0, best_metrics={})
    log_lines(
        f"evaluations up to step {checkpoint.step} do not count for the best: they are of the smaller tokenizer"
    )
    checkpoint = replace(checkpoint, state={**state, "history": history})
    checkpoint = policy.admit(checkpoint, data.fingerprint, saved["tokenizer"])
    start = data.train.state_dict()
    try:
        data.train.load_state_dict(checkpoint.state["data"])
        data.train.load_state_dict(start)  # that of the first step, which `TrainState` keeps
    except DataError as error:
        raise ConfigError(
            f"{KEY}: cannot change with this data.order, which counts tokens ({error})"
        ) from None
    return checkpoint
