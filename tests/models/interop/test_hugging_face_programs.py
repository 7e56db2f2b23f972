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
WORDS = (
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
)
PROMPTS = ["the cat", "a small"]

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


def train(folder, *overrides, without=()):
    unused = [*without, *(["data.baselines"] if "data=streaming" in overrides else [])]
    settings = [
        each for each in tiny_overrides(*SHORT, *overrides) if each.split("=")[0] not in unused
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


def export(run, out, *options):
    assert main(["hf", f"run={run}", f"out={out}", *options]) == 0
    return out


def mlx_logits(run, tokens, mask):
    logits = restore_model(run).model(mx.array(tokens), mx.array(mask))
    return np.array(logits)


def logits_of(model, tokens, mask):
    with torch.no_grad():
        types = (
            {}
            if model.config.model_type == "llama"
            else {"token_type_ids": torch.zeros_like(torch.tensor(tokens))}
        )
        out = model.eval()(
            input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask), **types
        )
    return out.logits.numpy()


def batch(vocab_size, length=12):
    tokens = np.random.default_rng(1).integers(4, vocab_size, (2, length))
    mask = np.ones_like(tokens)
    mask[1, 8:] = 0
    return tokens, mask


def test_a_decoder_gives_equal_logits_and_text(decoder, tmp_path):
    out = export(decoder, tmp_path / "hf")
    restored = restore_model(decoder)
    generator = restored_generator(restored)
    tokens, mask = batch(restored.encoder.tokenizer.vocab_size)
    expected = mlx_logits(decoder, tokens, mask)
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


def test_an_architecture_of_mlx_lm(source, tmp_path):
    sizes = "hidden_size: 32, num_hidden_layers: 1, intermediate_size: 48, num_attention_heads: 2, rms_norm_eps: 1e-5"
    node = f"model.config={{model_type: llama, {sizes}}}"
    sized = ("model.num_layers", "model.hidden_size", "model.num_heads", "model.intermediate_size")
    run = train(tmp_path / "run", "model=mlx_lm", node, source, *TEXT, without=sized)
    out = export(run, tmp_path / "hf")
    model, tokenizer = mlx_lm.load(str(out))
    tokens, mask = batch(200)
    np.testing.assert_allclose(
        np.array(model(mx.array(tokens[:1]))), mlx_logits(run, tokens[:1], mask[:1]), atol=1e-4
    )
    request = GenerationConfig(max_tokens=12, context_length=64, temperature=0.0)
    texts = restored_generator(restore_model(run)).texts(PROMPTS, request)
    assert all(texts), "the model says nothing"
    spoken = [mlx_lm.generate(model, tokenizer, prompt, max_tokens=12) for prompt in PROMPTS]
    assert [text.lstrip() for text in texts] == spoken


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_decoder_in_fewer_bytes(decoder, tmp_path, dtype):
    out = export(decoder, tmp_path / "hf", f"dtype={dtype}")
    torch_model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert torch_model.dtype == getattr(torch, dtype)
    tokens, mask = batch(200)
    difference = logits_of(torch_model.float(), tokens, mask) - mlx_logits(decoder, tokens, mask)
    difference = np.abs(difference)[mask > 0].max()
    assert 0 < difference < {"float16": 0.02, "bfloat16": 0.15}[dtype]


def test_an_encoder_classifies_the_same(tmp_path):
    run = train(tmp_path / "run")
    out = export(run, tmp_path / "hf")
    torch_model, loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
        out, output_loading_info=True
    )
    assert not any(loaded.values()), loaded
    encoder = restore_model(run).encoder
    assert torch_model.config.id2label == dict(enumerate(encoder.task.labels))
    tokens, mask = batch(encoder.tokenizer.vocab_size)
    np.testing.assert_allclose(
        logits_of(torch_model, tokens, mask), mlx_logits(run, tokens, mask), atol=1e-4
    )
    _, loaded = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    assert not loaded["missing_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    text = "Mr. Smith, male, 30"
    assert tokenizer(text)["input_ids"] == encoder.tokenizer.encode(text)


def test_a_masked_model_gives_equal_logits(source, tmp_path):
    run = train(tmp_path / "run", "model=bert", source, *TEXT)
    out = export(run, tmp_path / "hf")
    torch_model, loaded = transformers.AutoModelForMaskedLM.from_pretrained(
        out, output_loading_info=True
    )
    assert not any(loaded.values()), loaded
    tokens, mask = batch(200)
    expected = mlx_logits(run, tokens, mask)
    np.testing.assert_allclose(
        logits_of(torch_model, tokens, mask)[mask > 0], expected[mask > 0], atol=1e-4
    )
    assert transformers.AutoTokenizer.from_pretrained(out).mask_token == "<mask>"
