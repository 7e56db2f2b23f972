"""Predicts masked tokens with a masked language model."""

import mlx.core as mx
import numpy as np

from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.tokenizers.tokenizer import SPECIAL_NAMES
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
    masked = {i for i, token in enumerate(tokens) if token == encoder.tokenizer.mask_id}
    max_length = restored.model.backbone.max_position_embeddings
    if not masked:
        raise DataError("expected a text with <mask>, got none")
    if len(tokens) > max_length:
        raise DataError(f"expected a text of at most {max_length} tokens, got {len(tokens)}")
    ids = mx.array([tokens])
    logits = restored.model(ids, mx.ones(ids.shape, dtype=mx.int32))[0]  # (T, V)
    best = np.array(logits.argmax(axis=-1)).tolist()
    return encoder.tokenizer.decode([best[i] if i in masked else token for i, token in enumerate(tokens)])


def _tokens(encoder: TextEncoder, text: str) -> list[int]:
    for name in SPECIAL_NAMES["mask"]:
        text = text.replace(name, SPECIAL_NAMES["mask"][0])
    tokens, *segments = (
        encoder.tokenizer.encode(segment, special=False) for segment in text.split(SPECIAL_NAMES["mask"][0])
    )
    assert encoder.tokenizer.mask_id is not None
    for segment in segments:
        tokens += [encoder.tokenizer.mask_id, *segment]
    return tokens
