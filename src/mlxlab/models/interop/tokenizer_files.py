"""Tokenizer files in the layout of transformers: tokenizer.json, tokenizer_config.json and a chat template."""

import json

import tokenizers
from tokenizers.processors import TemplateProcessing

from mlxlab.data.chat.chat_template import FILE as TEMPLATE_FILE
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.models.interop.trained_model import TrainedModel


def tokenizer_files(trained: TrainedModel) -> dict[str, str]:
    """The text of each file by name. The tokenizer gives the ids that the model was trained with."""
    inner = tokenizers.Tokenizer.from_str(trained.tokenizer.inner.to_str())
    if trained.generates:
        inner.post_processor = _start_only(trained)
    elif trained.task.pair_separator is not None:
        second_type = int(trained.has_token_types)
        inner.post_processor = _pairs(trained.tokenizer, second_type)
    files = {
        "tokenizer.json": inner.to_str(),
        "tokenizer_config.json": json.dumps(_config(trained), ensure_ascii=False, indent=1) + "\n",
    }
    return files | ({TEMPLATE_FILE: trained.template.source} if trained.template else {})


def special_tokens(trained: TrainedModel) -> dict[str, str]:
    """The special tokens under the names of transformers."""
    tokenizer = trained.tokenizer
    start, end = ("bos_token", "eos_token") if trained.generates else ("cls_token", "sep_token")
    ids = {
        start: trained.start_id if trained.generates else tokenizer.bos_id,
        end: tokenizer.eos_id,
        "pad_token": tokenizer.pad_id,
        "mask_token": tokenizer.mask_id,
    }
    tokens = {
        role: str(tokenizer.inner.id_to_token(token))
        for role, token in ids.items()
        if token is not None
    }
    unknown = json.loads(tokenizer.inner.to_str())["model"].get("unk_token")
    if trained.template is not None and trained.template.eos_token:
        tokens["eos_token"] = trained.template.eos_token
    return tokens | ({"unk_token": unknown} if unknown else {})


def _config(trained: TrainedModel) -> dict[str, object]:
    positions = trained.model.backbone.max_position_embeddings
    limits = [
        limit
        for limit in (trained.seq_len, trained.model.backbone.position_limit)
        if limit is not None
    ]
    types = ["token_type_ids"] if trained.has_token_types else []
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", *types, "attention_mask"],
        # The rows that a decoder was trained on hold several texts, or pieces of one: they are no limit of a text.
        "model_max_length": positions if trained.generates else min(limits, default=positions),
        "padding_side": "left" if trained.generates else "right",
        "clean_up_tokenization_spaces": False,
        **special_tokens(trained),
    }


def _start_only(trained: TrainedModel) -> TemplateProcessing:
    """What a decoder expects before a text; an end token after it would end the text before it is continued."""
    tokens = [(str(trained.tokenizer.inner.id_to_token(token)), token) for token in trained.start]
    names = [name for name, _ in tokens]
    return TemplateProcessing(single=[*names, "$A"], special_tokens=tokens)


def _pairs(tokenizer: Tokenizer, second_type: int) -> TemplateProcessing:
    """`start a end b end`, with the type of the second text for `b end`."""
    ids = [tokenizer.bos_id, tokenizer.end_id]
    tokens = [
        (str(tokenizer.inner.id_to_token(token)), token) for token in ids if token is not None
    ]
    *start, end = (name for name, _ in tokens)
    single = [*start, "$A", end]
    pair = [*single, f"$B:{second_type}", f"{end}:{second_type}"]
    return TemplateProcessing(single=single, pair=pair, special_tokens=tokens)
