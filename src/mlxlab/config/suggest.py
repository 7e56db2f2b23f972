"""Suggests the name that was probably meant."""

from collections.abc import Iterable

from mlxlab.nearest import distance, nearest_names

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
_OF_OTHER_DATA = {  # keys of one data set -> the key of the same meaning in another one
    **dict.fromkeys(("label_column", "label", "target_column", "y"), ("target", "label_column")),
    **dict.fromkeys(("target",), ("label_column",)),
    **dict.fromkeys(("text_column", "text"), ("columns",)),
    **dict.fromkeys(("columns",), ("text_column",)),
}
_OF_OTHER_LIBRARIES = {
    "all-linear": ("null", "all linear layers of attention and feed-forward")
}  # value -> ours


def value_suggestion(value: object, path: str) -> str:
    """`; path=null is ...` for a value that other libraries have in place of ours, else nothing."""
    ours, meaning = _OF_OTHER_LIBRARIES.get(str(value), ("", ""))
    return f"; {path}={ours} is {meaning}" if ours else ""


def nearest(typed: str, valid: Iterable[str]) -> str | None:
    """The valid name closest to `typed`: a typing error, an abbreviation (`lr`), or None."""
    names = sorted(set(valid))
    if (close := nearest_names(typed, names)) and _is_near(typed.lower(), close[0].lower()):
        return close[0]
    for name in names:
        if typed.lower() == "".join(word[:1] for word in name.lower().split("_")):
            return name
    return min(
        (name for name in names if len(typed) > 1 and _abbreviates(typed.lower(), name)),
        key=len,
        default=None,
    )


def did_you_mean(name: str | None) -> str:
    return f"; did you mean {name}?" if name else ""


def suggestion(typed: str, valid: Iterable[str], prefix: str = "") -> str:
    """`; did you mean x?`, else the valid names if they are few, else nothing."""
    names = sorted(set(valid))
    if near := nearest(typed, names):
        return did_you_mean(prefix + near)
    return f"; there is {', '.join(names)}" if 0 < len(names) <= 12 else ""


def key_suggestion(typed: str, keys: Iterable[str], path: str, elsewhere: Iterable[str]) -> str:
    """`suggestion` among the keys of the node at `path`, or a dotted key `elsewhere` if that is closer."""
    if meant := next(
        (name for name in _OF_OTHER_DATA.get(typed, ()) if name in keys and name != typed), ""
    ):
        return did_you_mean(f"{path}.{meant}" if path else meant)
    if (typed in _SYNONYMS or nearest(typed, keys) is None) and (
        key := nearest_key(typed, elsewhere)
    ):
        return did_you_mean(key)
    return suggestion(typed, keys, f"{path}." if path else "")


def nearest_key(typed: str, keys: Iterable[str]) -> str | None:
    """The dotted key whose last name is `typed`, a synonym of it, or the closest to it; the shortest of several."""
    by_name: dict[str, list[str]] = {}
    for key in keys:
        if not (name := key.rpartition(".")[2]).startswith("_"):  # `_target_` is chosen by a group
            by_name.setdefault(name, []).append(key)
    name = typed if typed in by_name else _SYNONYMS.get(typed.lower(), "")
    name = name if name in by_name else (nearest(typed, by_name) or "")
    return (
        min(by_name[name], key=lambda key: (key.count("."), not key.startswith("trainer")))
        if name
        else None
    )


def _is_near(typed: str, name: str) -> bool:
    """Whether it is one of the words of the name, or takes few edits: `out` is not near `dropout`."""
    return typed in name.split("_") or distance(typed, name) <= max(2, len(typed) // 2)


def _abbreviates(short: str, name: str) -> bool:
    letters = iter(name.lower())
    return name[:1].lower() == short[:1] and all(letter in letters for letter in short)
