"""Exported folders in transformers and mlx-lm: equal logits, and equal text without sampling."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.restore import restore_model
from mlxlab.inference.text_generator import restored_generator
from support.commands import command
from support.processes import run_here, tiny_overrides

main = command("export")

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (extra interop)"
)
torch = pytest.importorskip("torch", reason="torch is not installed (extra interop)")
mlx_lm = pytest.importorskip("mlx_lm", reason="mlx-lm is not installed (extra interop)")

SHORT = ["trainer.max_steps=30", "trainer.eval_every=30", "trainer.learning_rate=0.01"]
TEXT = ["data=streaming", "data.seq_len=32", "data.tokenizer.vocab_size=400"]
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "tree",
    "house",
    "sees",
    "likes",
    "small",
    "green",
    "bird",
    "and",
    "with",
    "runs",
]
PROMPTS = ["the cat", "a small"]

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


def train(folder, *overrides):
    settings = [
        each for each in tiny_overrides(*SHORT, *overrides) if not each.startswith("data.baselines")
    ]
    done = run_here(*dict.fromkeys(settings), f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("source") / "text.jsonl", np.random.default_rng(0)
    lines = [json.dumps({"text": " ".join(rng.choice(WORDS, 30)) + "."}) for _ in range(300)]
    path.write_text("\n".join(lines) + "\n")
    return f"data.source={path}"


@pytest.fixture(scope="module")
def decoder(source, tmp_path_factory):
    shape = ["model.num_kv_heads=1", "model.rope_theta=50000", "model.tie_embeddings=false"]
    return train(
        tmp_path_factory.mktemp("decoder") / "run", "model=transformer", source, *TEXT, *shape
    )


def export(run, out):
    assert main(["hf", f"run={run}", f"out={out}"]) == 0
    return out


def logits_of(model, tokens, mask):
    with torch.no_grad():
        out = model.eval()(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask))
    return out.logits.numpy()


def batch(vocab_size):
    tokens = np.random.default_rng(1).integers(4, vocab_size, (2, 12))
    mask = np.ones_like(tokens)
    mask[1, 8:] = 0
    return tokens, mask


def test_a_decoder_gives_equal_logits_and_text(decoder, tmp_path):
    out = export(decoder, tmp_path / "hf")
    restored = restore_model(decoder)
    generator = restored_generator(restored)
    tokens, mask = batch(restored.encoder.tokenizer.vocab_size)
    expected = np.array(restored.model(mx.array(tokens), mx.array(mask)))
    torch_model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
        out, output_loading_info=True
    )
    assert type(torch_model).__name__ == "LlamaForCausalLM"
    assert not any(loaded.values()), loaded
    real = mask > 0
    np.testing.assert_allclose(
        logits_of(torch_model, tokens, mask)[real], expected[real], atol=1e-4
    )
    apple, apple_tokenizer = mlx_lm.load(str(out))
    np.testing.assert_allclose(np.array(apple(mx.array(tokens[:1]))), expected[:1], atol=1e-4)

    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    request = GenerationConfig(max_tokens=12, context_length=64, temperature=0.0)
    texts = generator.texts(PROMPTS, request)
    assert all(texts), "the model says nothing"
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    for row, prompt in zip(inputs["input_ids"], PROMPTS, strict=True):
        assert [token for token in row.tolist() if token] == generator.tokens(prompt, True)
    answers = torch_model.generate(**inputs, max_new_tokens=12)[:, inputs["input_ids"].shape[1] :]
    assert tokenizer.batch_decode(answers, skip_special_tokens=True) == texts
    spoken = [mlx_lm.generate(apple, apple_tokenizer, prompt, max_tokens=12) for prompt in PROMPTS]
    assert [text.lstrip() for text in texts] == spoken, "mlx-lm drops the first space"
