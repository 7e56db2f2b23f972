"""Models of `model=mlx_lm` as exported folders, in mlx-lm: equal logits and text."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import ConfigError
from mlxlab.models.interop.gguf import export_gguf
from mlxlab.models.interop.hugging_face import export_hugging_face
from mlxlab.models.interop.peft import export_peft
from support import zoo
from support.exported import CLASSES, CODES, ORIGIN, TOKENS

mlx_lm = pytest.importorskip("mlx_lm", reason="needs the extra zoo")

TARGET = "mlxlab.models.zoo.mlx_lm.MlxLm"
CONFIGS = {
    name: {**zoo.CONFIGS[name], "torch_dtype": "bfloat16"}
    for name in ("llama", "qwen3", "mamba", "glm4_moe")
}
LORA = {"_target_": "mlxlab.models.options.LoRA", "rank": 2, "alpha": 64.0}
REAL = mx.ones((1, 6), mx.bool_)

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


def node(name, **options):
    return {"_target_": TARGET, "config": CONFIGS[name], "dropout": 0.0, **options}


@pytest.mark.parametrize(
    "options", [{}, {"adapter": LORA}, {"quantization": CODES}], ids=["plain", "lora", "codes"]
)
@pytest.mark.parametrize("name", CONFIGS)
def test_mlx_lm_gives_equal_logits_and_text(trained, tokenizer, tmp_path, name, options):
    scale = 3.0 if "quantization" not in options else 1.0
    source, out = trained(node(name, **options), scale=scale), tmp_path / "hf"
    export_hugging_face(source, out, ORIGIN)
    model, words = mlx_lm.load(str(out))
    np.testing.assert_allclose(
        np.array(model(TOKENS)), np.array(source.model(TOKENS, REAL)), atol=1e-4
    )
    row = tokenizer.encode("the cat", special=False)
    assert words.encode("the cat") == row
    length = len(row)
    for _ in range(6):
        logits = source.model(mx.array([row]), mx.ones((1, len(row)), mx.bool_))
        row.append(int(logits[0, -1].argmax()))
    answer = row[length : [*row, tokenizer.eos_id].index(tokenizer.eos_id, length)]
    text = mlx_lm.generate(model, words, "the cat", max_tokens=6)
    assert text.strip() == words.decode(answer).strip()
    card = (out / "README.md").read_text()
    assert "library_name: mlx\n" in card
    assert "from transformers" not in card
    assert "torch_dtype" not in json.loads((out / "config.json").read_text())


def test_what_mlx_lm_keeps_in_float32_stays(trained, tmp_path):
    export_hugging_face(trained(node("glm4_moe")), tmp_path / "hf", ORIGIN, "bfloat16")
    arrays = mx.load(str(tmp_path / "hf" / "model.safetensors"))
    assert {
        name.rpartition(".")[2] for name, array in arrays.items() if array.dtype != mx.bfloat16
    } == {"e_score_correction_bias"}


def test_what_mlx_lm_lacks_is_one_line(trained, tmp_path):
    classifier = trained(node("llama"), CLASSES)
    with pytest.raises(ConfigError, match=r"^model=mlx_lm: .* no classifiers"):
        export_hugging_face(classifier, tmp_path / "hf", ORIGIN)
    with pytest.raises(ConfigError, match=r"^model=mlx_lm: .* for a GGUF file"):
        export_gguf(trained(node("llama")), tmp_path / "model.gguf", "tiny")
    with pytest.raises(ConfigError, match=r"^model=mlx_lm: PEFT needs the names of transformers"):
        export_peft(trained(node("llama", adapter=LORA)), tmp_path / "peft", ORIGIN, None)
    assert not list(tmp_path.iterdir())
