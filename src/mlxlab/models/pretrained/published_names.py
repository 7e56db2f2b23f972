"""Paths of parameters in our models as published names: the inverse of the tables by which weights are loaded."""

import re
from collections.abc import Sequence

Table = Sequence[tuple[str, str]]  # regular expressions of our paths, and what replaces them

BERT: Table = (
    (r"^head\.transform\.", "cls.predictions.transform.dense."),
    (r"^head\.norm\.", "cls.predictions.transform.LayerNorm."),
    (r"^head\.bias$", "cls.predictions.bias"),
    (r"^head\.out\.", "classifier."),
    (r"^backbone\.embedding\.", "bert.embeddings.word_embeddings."),
    (r"^backbone\.position_embedding\.", "bert.embeddings.position_embeddings."),
    (r"^backbone\.type_embedding\.", "bert.embeddings.token_type_embeddings."),
    (r"^backbone\.norm\.", "bert.embeddings.LayerNorm."),
    (r"^backbone\.pooler\.", "bert.pooler.dense."),
    (r"^backbone\.layers\.(\d+)\.", r"bert.encoder.layer.\1."),
    (r"\.attention\.(query|key|value)\.", r".attention.self.\1."),
    (r"\.attention\.out\.", ".attention.output.dense."),
    (r"\.attention_norm\.", ".attention.output.LayerNorm."),
    (r"\.feed_forward\.up\.", ".intermediate.dense."),
    (r"\.feed_forward\.down\.", ".output.dense."),
    (r"\.feed_forward_norm\.", ".output.LayerNorm."),
)
LLAMA: Table = (
    (r"^head\.out\.", "lm_head."),
    (r"^backbone\.embedding\.", "model.embed_tokens."),
    (r"^backbone\.", "model."),
    (r"\.attention\.query\.", ".self_attn.q_proj."),
    (r"\.attention\.key\.", ".self_attn.k_proj."),
    (r"\.attention\.value\.", ".self_attn.v_proj."),
    (r"\.attention\.out\.", ".self_attn.o_proj."),
    (r"\.feed_forward\.(gate|up|down)\.", r".mlp.\1_proj."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.feed_forward_norm\.", ".post_attention_layernorm."),
)
GGUF: Table = (
    (r"^head\.out\.", "output."),
    (r"^backbone\.embedding\.", "token_embd."),
    (r"^backbone\.norm\.", "output_norm."),
    (r"^backbone\.layers\.", "blk."),
    (r"\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attn_\1."),
    (r"\.attention\.out\.", ".attn_output."),
    (r"\.attention_norm\.", ".attn_norm."),
    (r"\.feed_forward_norm\.", ".ffn_norm."),
    (r"\.feed_forward\.(gate|up|down)\.", r".ffn_\1."),
)


def published_name(path: str, table: Table) -> str:
    for pattern, replacement in table:
        path = re.sub(pattern, replacement, path)
    return path
