"""Writes the parity fixtures of `tests/data/pretrained`: tiny random models of transformers, and their logits.

python tests/models/pretrained/make_fixtures.py (with the packages of the extra `interop`)
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import transformers as hf
from safetensors.numpy import load_file

FOLDER = Path(__file__).parents[2] / "data" / "pretrained"
VOCAB_SIZE = 24
SHAPE = {"vocab_size": VOCAB_SIZE, "hidden_size": 16, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32}
DECODER = SHAPE | {"num_key_value_heads": 1, "pad_token_id": None}
DECODER |= {"bos_token_id": 1, "eos_token_id": 2}
ROPE = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0}
ROPE |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
ROBERTA = SHAPE | {"max_position_embeddings": 34, "type_vocab_size": 1, "pad_token_id": 1}
DISTILBERT = {"vocab_size": VOCAB_SIZE, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
DISTILBERT |= {"max_position_embeddings": 32}
MODERNBERT = SHAPE | {"num_hidden_layers": 3, "global_attn_every_n_layers": 2}
MODERNBERT |= {"local_attention": 4, "pad_token_id": 0, "cls_token_id": 1, "bos_token_id": 1}
MODERNBERT |= {"sep_token_id": 2, "eos_token_id": 2, "global_rope_theta": 400.0}
MODELS = {
    "bert": (hf.BertConfig(**SHAPE), hf.BertForMaskedLM),
    "roberta": (hf.RobertaConfig(**ROBERTA), hf.RobertaForMaskedLM),
    "distilbert": (hf.DistilBertConfig(**DISTILBERT), hf.DistilBertForMaskedLM),
    "modernbert": (hf.ModernBertConfig(**MODERNBERT), hf.ModernBertForMaskedLM),
    "llama3": (
        hf.LlamaConfig(**DECODER, rope_parameters=ROPE, attention_bias=True),
        hf.LlamaForCausalLM,
    ),
    "mistral": (
        hf.MistralConfig(**DECODER, sliding_window=None, head_dim=12),
        hf.MistralForCausalLM,
    ),
    "qwen2": (hf.Qwen2Config(**DECODER, tie_word_embeddings=True), hf.Qwen2ForCausalLM),
    "qwen3": (hf.Qwen3Config(**DECODER, head_dim=12), hf.Qwen3ForCausalLM),
}


def main() -> None:
    tokens = np.random.default_rng(0).integers(3, VOCAB_SIZE, (2, 11))
    mask = np.ones_like(tokens)
    mask[1, 7:] = 0
    FOLDER.mkdir(exist_ok=True)
    for name, (config, kind) in MODELS.items():
        model = kind(config).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                # Numbers of float16, to be stored in half the bytes.
                parameter.copy_((parameter + 0.2 * torch.randn_like(parameter)).half().float())
            rows = np.where(mask > 0, tokens, config.pad_token_id or 0)
            logits = model(input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask)).logits
        with TemporaryDirectory() as folder:
            model.save_pretrained(folder)  # leaves out the copies of tied weights
            saved = load_file(Path(folder) / "model.safetensors")
            text = json.dumps(json.loads((Path(folder) / "config.json").read_text()))
        arrays = {f"weight/{name}": array.astype(np.float16) for name, array in saved.items()}
        np.savez_compressed(
            FOLDER / f"{name}.npz",
            config=text,
            rows=rows,
            mask=mask,
            logits=logits.numpy(),
            **arrays,
        )


if __name__ == "__main__":
    main()
