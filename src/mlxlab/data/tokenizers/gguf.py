"""Converts the tokenizer of a GGUF file to the `tokenizers` library."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from mlxlab.data.tokenizers.tokenizer import SPACE
from mlxlab.errors import ConfigError, DataError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # kinds of tokens
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    "llama-bpe": [
        pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
}

Metadata = dict[str, Any]  # as `read_gguf` returns it


def tokenizer_from(metadata: Metadata, path: Path) -> tokenizers.Tokenizer:
    """The tokenizer in the metadata of a GGUF file; `path` is for messages.

    Raises:
        DataError: the file has no tokenizer.
        ConfigError: its kind is not supported.
    """
    known = {"gpt2": _byte_level, "llama": _sentence_piece}
    kind, pieces = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.tokens")
    if kind is None or not pieces:
        raise DataError(f"{path}: has no tokenizer")
    if kind not in known:
        raise ConfigError(
            f"model.pretrained={path}: expected a tokenizer of kind {' or '.join(known)}, got {kind}"
        )
    inner = known[kind](metadata, path)
    kinds = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(pieces)
    added = list(zip(pieces, kinds, strict=True))
    special = [
        AddedToken(piece, special=True, normalized=False)
        for piece, of in added
        if of in (CONTROL, UNKNOWN)
    ]
    inner.add_special_tokens(special)
    inner.add_tokens([AddedToken(piece, normalized=False) for piece, of in added if of == USER])
    ends = {}
    for role, default in (("bos", kind == "llama"), ("eos", False)):
        token = metadata.get(f"tokenizer.ggml.{role}_token_id")
        if token is not None and metadata.get(f"tokenizer.ggml.add_{role}_token", default):
            ends[role] = (pieces[token], token)
    if ends:
        names = [ends[role][0] if role in ends else "" for role in ("bos", "eos")]
        template = f"{names[0]} $A {names[1]}".strip()
        inner.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=list(ends.values())
        )
    return inner


def chat_template_from(metadata: Metadata) -> dict[str, str]:
    """The chat template of a GGUF file as files of a tokenizer's folder, by name; none without a template."""
    template, pieces = (
        metadata.get("tokenizer.chat_template"),
        metadata.get("tokenizer.ggml.tokens"),
    )
    if not isinstance(template, str) or not pieces:
        return {}
    ids = {role: metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos")}
    tokens = {f"{role}_token": pieces[token] for role, token in ids.items() if token is not None}
    return {"chat_template.jinja": template, "tokenizer_config.json": json.dumps(tokens)}


def _byte_level(metadata: Metadata, path: Path) -> tokenizers.Tokenizer:
    kind = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind not in PRE_TOKENIZERS:
        expected = ", ".join(PRE_TOKENIZERS)
        raise ConfigError(
            f"model.pretrained={path}: expected a pre-tokenizer among {expected}, got {kind}"
        )
    vocabulary = {piece: token for token, piece in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ", 1)) for pair in metadata.get("tokenizer.ggml.merges", ())]
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=kind == "llama-bpe"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(PRE_TOKENIZERS[kind])
    inner.decoder = decoders.ByteLevel()
    return inner


def _sentence_piece(metadata: Metadata, path: Path) -> tokenizers.Tokenizer:
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
    inner = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix = (
        [normalizers.Prepend(SPACE)]
        if metadata.get("tokenizer.ggml.add_space_prefix", True)
        else []
    )
    inner.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    inner.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return inner
