"""Suggests the key, option, command or file that was probably meant."""

import os
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

MIN_SIMILARITY = 0.7  # the ratio of difflib below which a name is no suggestion
MAX_LISTED = 12  # names that are listed where none is close

_SYNONYMS = {  # names of other libraries -> ours
    **dict.fromkeys(("lr", "rate", "peak_lr", "base_lr", "max_lr"), "learning_rate"),
    **dict.fromkeys(
        ("bs", "bsz", "batch", "per_device_train_batch_size", "micro_batch_size"), "batch_size"
    ),
    **dict.fromkeys(("max_epochs", "num_epochs", "n_epochs", "num_train_epochs"), "epochs"),
    **dict.fromkeys(
        ("steps", "num_steps", "train_steps", "total_steps", "max_iters", "iters"), "max_steps"
    ),
    **dict.fromkeys(("layers", "n_layers", "n_layer", "depth", "num_hidden_layers"), "num_layers"),
    **dict.fromkeys(("heads", "n_heads", "n_head", "num_attention_heads"), "num_heads"),
    **dict.fromkeys(("hidden", "dim", "d_model", "n_embd", "width", "hidden_dim"), "hidden_size"),
    **dict.fromkeys(("ffn", "ffn_dim", "d_ff", "feed_forward", "mlp_dim"), "intermediate_size"),
    **dict.fromkeys(("wd", "decay"), "weight_decay"),
    **dict.fromkeys(("clip", "grad_clip", "clip_grad_norm", "gradient_clip_val"), "max_grad_norm"),
    **dict.fromkeys(
        ("grad_accum", "gradient_accumulation_steps", "accumulate_grad_batches"), "accumulate"
    ),
    **dict.fromkeys(
        ("max_length", "max_len", "seq_length", "block_size", "context_length"), "seq_len"
    ),
    **dict.fromkeys(("warmup_steps", "warmup_ratio", "num_warmup_steps"), "warmup"),
    **dict.fromkeys(("vocab", "n_vocab"), "vocab_size"),
    **dict.fromkeys(("random_seed", "random_state"), "seed"),
}


def nearest(typed: str, valid: Iterable[str]) -> str | None:
    """The valid name with the same letters as `typed`, else the closest one; None if none is close."""
    names = sorted({*valid})
    same_letters = [name for name in names if sorted(name) == sorted(typed)]
    close = same_letters or get_close_matches(typed, names, n=1, cutoff=MIN_SIMILARITY)
    return close[0] if close else None


def did_you_mean(name: str | None) -> str:
    return f"; did you mean {name}?" if name else ""


def suggestion(typed: str, valid: Iterable[str], prefix: str = "") -> str:
    """`; did you mean x?`, else the valid names if they are few, else nothing."""
    names = sorted({*valid})
    if near := nearest(typed, names):
        return did_you_mean(prefix + near)
    return f"; there is {', '.join(names)}" if 0 < len(names) <= MAX_LISTED else ""


def key_suggestion(typed: str, keys: Iterable[str], path: str, elsewhere: Iterable[str]) -> str:
    """`suggestion` among the keys of the node at `path`, or a dotted key `elsewhere` if that is closer."""
    if typed.lower() in _SYNONYMS or nearest(typed, keys) is None:
        if key := nearest_key(typed, elsewhere):
            return did_you_mean(key)
    return suggestion(typed, keys, f"{path}." if path else "")


def nearest_key(typed: str, keys: Iterable[str]) -> str | None:
    """The dotted key whose last name is `typed`, a synonym of it, or the closest to it; the shortest of several."""
    by_name: dict[str, list[str]] = {}
    for key in keys:
        name = key.rpartition(".")[2]
        if not name.startswith("_"):  # `_target_` is chosen by a group.
            by_name.setdefault(name, []).append(key)
    for candidate in (typed, _SYNONYMS.get(typed.lower()), nearest(typed, by_name)):
        if candidate in by_name:
            return min(
                by_name[candidate], key=lambda key: (key.count("."), not key.startswith("trainer"))
            )
    return None


def nearest_path(path: Path) -> str:
    """`; did you mean outputs/tickets?` with the closest name in the folder of a path, else nothing."""
    with suppress(OSError, ValueError):
        near = nearest(path.name, os.listdir(path.parent))
        if near and near != path.name:
            return did_you_mean(str(path.parent / near))
    return ""


def no_such_folder(path: Path, expected: str) -> str:
    """`outputs/ticket: no such folder; did you mean outputs/tickets?`, or what was expected if no name is near."""
    if os.path.isfile(path):
        return f"{path}: a file, expected {expected}"
    return f"{path}: no such folder{nearest_path(path) or f'; expected {expected}'}"
