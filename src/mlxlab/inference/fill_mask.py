"""Predicts masked tokens with a masked language model."""

from typing import Any

import mlx.core as mx

from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.tokenizers.tokenizer import KNOWN
from mlxlab.errors import DataError
from mlxlab.inference.restore import RestoredModel


def fill_mask(restored: RestoredModel, text: str) -> str:
    """The text with the most probable token for each `<mask>` (or `[MASK]`), all predicted at once.

    Raises:
        DataError: no mask, or more tokens than the model has positions.
    """
    encoder = restored.encoder
    assert isinstance(encoder, TextEncoder)
    tokens = _tokens(encoder, text)
    gaps = [place for place, token in enumerate(tokens) if token == encoder.tokenizer.mask_id]
    longest = restored.model.backbone.max_position_embeddings
    if not gaps:
        raise DataError("expected a text with <mask>, got none")
    if len(tokens) > longest:
        raise DataError(f"{len(tokens)} tokens in a text, the model has positions for {longest}")
    ids = mx.array([tokens])
    best: Any = restored.model(ids, mx.ones(ids.shape, dtype=mx.int32))[0].argmax(axis=-1).tolist()
    return encoder.tokenizer.decode([best[place] if place in gaps else token for place, token in enumerate(tokens)])


def _tokens(encoder: TextEncoder, text: str) -> list[int]:
    for name in KNOWN["mask"]:
        text = text.replace(name, KNOWN["mask"][0])
    first, *rest = (encoder.tokenizer.encode(part, special=False) for part in text.split(KNOWN["mask"][0]))
    assert encoder.tokenizer.mask_id is not None
    for part in rest:
        first += [encoder.tokenizer.mask_id, *part]
    return first
