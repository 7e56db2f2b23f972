"""Converts the tokenizer of a GGUF file to the `tokenizers` library."""

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


def tokenizer_from(metadata: dict[str, Any], path: Path) -> tokenizers.Tokenizer:
    """The tokenizer in the metadata that `read_gguf` returns; `path` is for messages.

    Raises:
        DataError: the file has no tokenizer.
        ConfigError: its kind is not supported.
    """
    known = {"gpt2": _byte_level, "llama": _sentence_piece}
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None or not metadata.get("tokenizer.ggml.tokens"):
        raise DataError(f"{path}: has no tokenizer")
    if kind not in known:
        raise ConfigError(f"model.pretrained={path}: expected a tokenizer of kind {' or '.join(known)}, got {kind}")
    inner = known[kind](metadata, path)
    pieces = metadata["tokenizer.ggml.tokens"]
    kinds = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(pieces)
    special = [AddedToken(piece, special=True, normalized=False) for piece in _of(pieces, kinds, CONTROL, UNKNOWN)]
    inner.add_special_tokens(special)
    inner.add_tokens([AddedToken(piece, normalized=False) for piece in _of(pieces, kinds, USER)])
    _add_template(inner, metadata, pieces)
    return inner


def _of(pieces: list[str], kinds: list[int], *expected: int) -> list[str]:
    return [piece for piece, kind in zip(pieces, kinds, strict=True) if kind in expected]


def _byte_level(metadata: dict[str, Any], path: Path) -> tokenizers.Tokenizer:
    cuts: dict[str, list[Any]] = {
        "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "llama-bpe": [
            pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ],
    }
    cut = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if cut not in cuts:
        raise ConfigError(f"model.pretrained={path}: expected a pre-tokenizer among {', '.join(cuts)}, got {cut}")
    vocabulary = {piece: token for token, piece in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ", 1)) for pair in metadata.get("tokenizer.ggml.merges", ())]
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=cut == "llama-bpe"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(cuts[cut])
    inner.decoder = decoders.ByteLevel()
    return inner


def _sentence_piece(metadata: dict[str, Any], path: Path) -> tokenizers.Tokenizer:
    """SentencePiece BPE: pairs are merged in descending order of the score of the merged piece."""
    pieces, scores = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.scores")
    if not scores:
        raise DataError(f"{path}: the tokenizer's scores are missing")
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    pairs = [
        (-scores[token], vocabulary[piece[:i]], vocabulary[piece[i:]], (piece[:i], piece[i:]))
        for piece, token in vocabulary.items()
        for i in range(1, len(piece))
        if piece[:i] in vocabulary and piece[i:] in vocabulary
    ]
    unknown = pieces[metadata.get("tokenizer.ggml.unknown_token_id", 0)]
    merges = [pair for *_, pair in sorted(pairs)]
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = [normalizers.Prepend(SPACE)] if metadata.get("tokenizer.ggml.add_space_prefix", True) else []
    inner.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    inner.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return inner


def _add_template(inner: tokenizers.Tokenizer, metadata: dict[str, Any], pieces: list[str]) -> None:
    """Adds the start and end tokens that the file asks for."""
    spm = metadata["tokenizer.ggml.model"] == "llama"
    ends = {}
    for role, default in (("bos", spm), ("eos", False)):
        token = metadata.get(f"tokenizer.ggml.{role}_token_id")
        if token is not None and metadata.get(f"tokenizer.ggml.add_{role}_token", default):
            ends[role] = (pieces[token], token)
    if ends:
        template = [ends["bos"][0]] if "bos" in ends else []
        template += ["$A"] + ([ends["eos"][0]] if "eos" in ends else [])
        inner.post_processor = processors.TemplateProcessing(
            single=" ".join(template), special_tokens=list(ends.values())
        )
