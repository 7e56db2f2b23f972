"""The tokenizer inside a GGUF file, as one of the `tokenizers` library."""

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from mlxlab.errors import ConfigError, DataError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # kinds of tokens
SPACE = "\u2581"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_from(facts: dict[str, Any], path: Path) -> tokenizers.Tokenizer:
    """Of the facts of `read_gguf`; `path` is named in faults.

    Raises:
        DataError: there is none in the file.
        ConfigError: it is of a kind that is not known here.
    """
    known = {"gpt2": _byte_level, "llama": _sentence_piece}
    kind = facts.get("tokenizer.ggml.model")
    if kind is None or not facts.get("tokenizer.ggml.tokens"):
        raise DataError(f"{path}: has no tokenizer")
    if kind not in known:
        raise ConfigError(f"model.pretrained={path}: a tokenizer of kind {kind}; known here: {', '.join(known)}")
    inner = known[kind](facts, path)
    pieces = facts["tokenizer.ggml.tokens"]
    kinds = facts.get("tokenizer.ggml.token_type") or [NORMAL] * len(pieces)
    special = [AddedToken(piece, special=True, normalized=False) for piece in _of(pieces, kinds, CONTROL, UNKNOWN)]
    inner.add_special_tokens(special)
    inner.add_tokens([AddedToken(piece, normalized=False) for piece in _of(pieces, kinds, USER)])
    _put_around(inner, facts, pieces)
    return inner


def _of(pieces: list[str], kinds: list[int], *expected: int) -> list[str]:
    return [piece for piece, kind in zip(pieces, kinds, strict=True) if kind in expected]


def _byte_level(facts: dict[str, Any], path: Path) -> tokenizers.Tokenizer:
    cuts: dict[str, list[Any]] = {
        "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "llama-bpe": [
            pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ],
    }
    cut = facts.get("tokenizer.ggml.pre", "gpt-2")
    if cut not in cuts:
        raise ConfigError(f"model.pretrained={path}: a tokenizer that cuts words like {cut}; known: {', '.join(cuts)}")
    vocabulary = {piece: token for token, piece in enumerate(facts["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ", 1)) for pair in facts.get("tokenizer.ggml.merges", ())]
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=cut == "llama-bpe"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(cuts[cut])
    inner.decoder = decoders.ByteLevel()
    return inner


def _sentence_piece(facts: dict[str, Any], path: Path) -> tokenizers.Tokenizer:
    """Pieces with scores: a pair is joined earlier the higher the score of what it makes."""
    pieces, scores = facts["tokenizer.ggml.tokens"], facts.get("tokenizer.ggml.scores")
    if not scores:
        raise DataError(f"{path}: the tokenizer's scores are missing")
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    pairs = [
        (-scores[token], vocabulary[piece[:i]], vocabulary[piece[i:]], (piece[:i], piece[i:]))
        for piece, token in vocabulary.items()
        for i in range(1, len(piece))
        if piece[:i] in vocabulary and piece[i:] in vocabulary
    ]
    unknown = pieces[facts.get("tokenizer.ggml.unknown_token_id", 0)]
    merges = [pair for *_, pair in sorted(pairs)]
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    in_front = [normalizers.Prepend(SPACE)] if facts.get("tokenizer.ggml.add_space_prefix", True) else []
    inner.normalizer = normalizers.Sequence([*in_front, normalizers.Replace(" ", SPACE)])
    taken_off = [decoders.Strip(" ", 1, 0)] if in_front else []
    inner.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *taken_off]
    )
    return inner


def _put_around(inner: tokenizers.Tokenizer, facts: dict[str, Any], pieces: list[str]) -> None:
    """The start and end tokens that the file wants around a text."""
    spm = facts["tokenizer.ggml.model"] == "llama"
    ends = {}
    for role, default in (("bos", spm), ("eos", False)):
        token = facts.get(f"tokenizer.ggml.{role}_token_id")
        if token is not None and facts.get(f"tokenizer.ggml.add_{role}_token", default):
            ends[role] = (pieces[token], token)
    if ends:
        words = [ends["bos"][0]] if "bos" in ends else []
        words += ["$A"] + ([ends["eos"][0]] if "eos" in ends else [])
        inner.post_processor = processors.TemplateProcessing(single=" ".join(words), special_tokens=list(ends.values()))
