"""`suite=qlora` measures every variant of a step on the same weights."""

import json

import mlx.core as mx
import numpy as np
import pytest
from benchmarks.__main__ import main

CONFIG = {"model_type": "llama", "vocab_size": 80, "hidden_size": 64, "intermediate_size": 128}
CONFIG |= {"num_hidden_layers": 1, "num_attention_heads": 4, "rms_norm_eps": 1e-5}
CONFIG["tie_word_embeddings"] = True
SHAPES = {f"self_attn.{name}_proj": (64, 64) for name in "qkvo"} | {"mlp.down_proj": (64, 128)}
SHAPES |= {f"mlp.{name}_proj": (128, 64) for name in ("gate", "up")}
SHAPES |= dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (64,))


@pytest.mark.slow
def test_the_table_has_every_variant(tmp_path, capsys):
    rng = np.random.default_rng(0)
    shapes = {f"model.layers.0.{name}.weight": shape for name, shape in SHAPES.items()}
    shapes |= {"model.embed_tokens.weight": (80, 64), "model.norm.weight": (64,)}
    values = {name: rng.normal(0, 0.1, shape) for name, shape in shapes.items()}
    arrays = {name: mx.array(value.astype(np.float32)) for name, value in values.items()}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), arrays)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert main(["suite=qlora", f"model={tmp_path}", "rows=2", "length=8", "rounds=1"]) == 0
    lines = capsys.readouterr().out.splitlines()[4:]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert [row[1] for row in rows] == ["LoRA, float32 base", "QLoRA", "QLoRA, MLX's product"]
    assert rows[1][-2] == rows[2][-2] < "0.3"
