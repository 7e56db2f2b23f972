"""Every layout that is exported, with random weights, in transformers and mlx-lm: equal logits and tokens."""

import re
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.data.batch import Task
from mlxlab.data.chat.chat_template import ChatTemplate, default_template
from mlxlab.models.interop.hugging_face import export_hugging_face
from mlxlab.models.layers import named_parameters
from support.exported import BERT, CLASSES, LLAMA, LORA, NUMBERS, ORIGIN, SCALING

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (extra interop)"
)
torch = pytest.importorskip("torch", reason="torch is not installed (extra interop)")
mlx_lm = pytest.importorskip("mlx_lm", reason="mlx-lm is not installed (extra interop)")
mlx_lm_generate = pytest.importorskip("mlx_lm.generate")

CODES = {"_target_": "mlxlab.models.options.Quantization", "group_size": 32}
DECODERS = {
    "Llama": {},
    "Llama, untied": {"tie_embeddings": False},
    "Llama, biases": {"attention_bias": "all"},
    "Llama, wide heads": {"head_dim": 12},
    "Llama, scaled positions": {"rope_scaling": SCALING},
    "Llama, adapters": {"adapter": LORA},
    "Llama, DoRA": {"adapter": {**LORA, "dora": True}},
    "Llama, codes": {"quantization": {**CODES, "bits": 4}},
    "Llama, adapters on codes": {"adapter": LORA, "quantization": {**CODES, "bits": 8}},
    "Qwen2": {"attention_bias": "qkv"},
    "Qwen3": {"qk_norm": True, "head_dim": 12, "tie_embeddings": False},
}
BINARY = Task("classification", 2, ("no", "yes"))
LABELS = Task("multi_label", 3, ("red", "green", "blue"))
LENGTH = 12

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


def batch(vocab_size):
    """Two rows of tokens; the second ends with padding."""
    tokens = np.random.default_rng(1).integers(4, vocab_size, (2, LENGTH))
    mask = np.ones_like(tokens)
    tokens[1, 8:], mask[1, 8:] = 0, 0
    return tokens, mask


def logits_of(model, tokens, mask, **more):
    with torch.no_grad():
        out = model.eval()(
            input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask), **more
        )
    return out.logits.float().numpy()


def load(loader, folder):
    """The model without missing or unexpected weights."""
    model, report = loader.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model


def continuation(model, tokens, count):
    """The most probable tokens after these."""
    row = list(tokens)
    for _ in range(count):
        row.append(int(model(mx.array([row]), mx.ones((1, len(row)), mx.int32))[0, -1].argmax()))
    return row[len(tokens) :]


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder(trained, tokenizer, tmp_path, name):
    source, out = trained({**LLAMA, **DECODERS[name]}, scale=5.0), tmp_path / "hf"
    export_hugging_face(source, out, ORIGIN)
    tokens, mask = batch(tokenizer.vocab_size)
    expected = np.array(source.model(mx.array(tokens), mx.array(mask)))
    torch_model = load(transformers.AutoModelForCausalLM, out)
    assert type(torch_model).__name__ == f"{name.split(',')[0]}ForCausalLM"
    np.testing.assert_allclose(
        logits_of(torch_model, tokens, mask)[mask > 0], expected[mask > 0], atol=1e-4
    )
    apple, _ = mlx_lm.load(str(out))
    np.testing.assert_allclose(np.array(apple(mx.array(tokens[:1]))), expected[:1], atol=1e-4)

    prompt = tokens[0].tolist()
    mlx_answer = continuation(source.model, prompt, 8)
    answer = torch_model.generate(torch.tensor([prompt]), max_new_tokens=8)[0, LENGTH:]
    assert answer.tolist() == mlx_answer
    steps = mlx_lm_generate.generate_step(mx.array(prompt), apple, max_tokens=8)
    assert [token for token, _ in steps] == mlx_answer


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("node", [LLAMA, BERT], ids=["decoder", "encoder"])
def test_fewer_bytes_are_rounded_weights(trained, tokenizer, tmp_path, dtype, node):
    source, out = trained(node, CLASSES if node is BERT else None), tmp_path / "hf"
    export_hugging_face(source, out, ORIGIN, dtype)
    loader = (
        transformers.AutoModelForSequenceClassification
        if node is BERT
        else transformers.AutoModelForCausalLM
    )
    torch_model = loader.from_pretrained(out, dtype="auto")
    assert torch_model.dtype == getattr(torch, dtype)
    tokens, mask = batch(tokenizer.vocab_size)
    rounded = {
        path: array.astype(getattr(mx, dtype)).astype(mx.float32)
        for path, array in named_parameters(source.model).items()
    }
    source.model.load_weights(list(rounded.items()))
    expected = np.array(source.model(mx.array(tokens), mx.array(mask)))
    real = slice(None) if node is BERT else mask > 0
    np.testing.assert_allclose(
        logits_of(torch_model.float(), tokens, mask)[real], expected[real], atol=1e-4
    )


@pytest.mark.parametrize(
    "options", [{}, {"num_token_types": 1}, {"mlp_type": "relu"}, {"adapter": LORA}], ids=str
)
@pytest.mark.parametrize(
    "task", [BINARY, CLASSES, LABELS, NUMBERS], ids=lambda task: f"{task.kind}{task.num_classes}"
)
def test_an_encoder_with_a_classifier(trained, tokenizer, tmp_path, task, options):
    thresholds = (0.25, 0.5, 0.75) if task is LABELS else ()
    source, out = (
        replace(trained({**BERT, **options}, task, scale=5.0), thresholds=thresholds),
        tmp_path / "hf",
    )
    export_hugging_face(source, out, ORIGIN)
    tokens, mask = batch(tokenizer.vocab_size)
    expected = np.array(source.model(mx.array(tokens), mx.array(mask)))
    if task is NUMBERS:
        expected = 3 * expected + 2
    torch_model = load(transformers.AutoModelForSequenceClassification, out)
    np.testing.assert_allclose(logits_of(torch_model, tokens, mask), expected, atol=1e-4)
    assert tuple(torch_model.config.id2label.values()) == (task.labels or ("LABEL_0",))
    kinds = {
        "classification": "single_label_classification",
        "multi_label": "multi_label_classification",
    }
    assert torch_model.config.problem_type == kinds.get(task.kind, "regression")
    states = transformers.AutoModel.from_pretrained(out).eval()(
        torch.tensor(tokens), torch.tensor(mask)
    )
    backbone = np.array(source.model.backbone(mx.array(tokens), mx.array(mask)))
    np.testing.assert_allclose(
        states.last_hidden_state.detach().numpy()[mask > 0], backbone[mask > 0], atol=1e-4
    )


@pytest.mark.parametrize("num_token_types", [1, 2])
def test_a_pair_of_texts(trained, tokenizer, tmp_path, num_token_types):
    task, out = replace(CLASSES, pair_separator=tokenizer.end_id), tmp_path / "hf"
    source = trained({**BERT, "num_token_types": num_token_types}, task, scale=5.0)
    export_hugging_face(source, out, ORIGIN)
    source.model.backbone.pair_separator = tokenizer.end_id if num_token_types == 2 else None
    inputs = transformers.AutoTokenizer.from_pretrained(out)(
        "the cat", "the dog", return_tensors="pt"
    )
    tokens = mx.array(inputs["input_ids"].numpy())
    torch_logits = (
        load(transformers.AutoModelForSequenceClassification, out)
        .eval()(**inputs)
        .logits.detach()
        .numpy()
    )
    np.testing.assert_allclose(
        torch_logits, np.array(source.model(tokens, mx.ones(tokens.shape, mx.int32))), atol=1e-4
    )


@pytest.mark.parametrize("options", [{}, {"norm_eps": 1e-5, "adapter": LORA}], ids=str)
def test_a_masked_model(trained, tokenizer, tmp_path, options):
    source, out = trained({**BERT, **options}, scale=5.0), tmp_path / "hf"
    export_hugging_face(source, out, ORIGIN)
    tokens, mask = batch(tokenizer.vocab_size)
    expected = np.array(source.model(mx.array(tokens), mx.array(mask)))
    torch_model = load(transformers.AutoModelForMaskedLM, out)
    np.testing.assert_allclose(
        logits_of(torch_model, tokens, mask)[mask > 0], expected[mask > 0], atol=1e-4
    )


@pytest.mark.parametrize("options", [{}, {"attention_bias": "qkv"}, {"qk_norm": True}], ids=str)
@pytest.mark.parametrize("task", [BINARY, LABELS], ids=lambda task: task.kind)
def test_a_decoder_with_a_classifier(trained, tokenizer, tmp_path, task, options):
    source, out = (
        trained({**LLAMA, "classifier_bias": False, **options}, task, scale=5.0),
        tmp_path / "hf",
    )
    export_hugging_face(source, out, ORIGIN)
    torch_model = load(transformers.AutoModelForSequenceClassification, out)
    assert type(torch_model).__name__.endswith("ForSequenceClassification")
    texts = ["the cat", "the dog sees the cat"]
    inputs = transformers.AutoTokenizer.from_pretrained(out)(
        texts, return_tensors="pt", padding=True
    )
    rows = [
        row[keep > 0].tolist()
        for row, keep in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    assert rows == [tokenizer.encode(text) for text in texts]
    tokens, mask = (mx.array(inputs[name].numpy()) for name in ("input_ids", "attention_mask"))
    logits = logits_of(torch_model, inputs["input_ids"].numpy(), inputs["attention_mask"].numpy())
    np.testing.assert_allclose(logits, np.array(source.model(tokens, mask)), atol=1e-4)


def test_a_chat(trained, tokenizer, tmp_path):
    text = "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    template, out = ChatTemplate(text, "a template", "<bos>", "<eos>"), tmp_path / "hf"
    source = replace(trained(LLAMA), template=template, end_ids=(tokenizer.eos_id, 7))
    export_hugging_face(source, out, ORIGIN)
    messages = [{"role": "user", "content": "the cat"}]
    apple = mlx_lm.load(str(out))[1]
    assert apple.eos_token_ids == {tokenizer.eos_id, 7}
    for words in (transformers.AutoTokenizer.from_pretrained(out), apple):
        assert words.apply_chat_template(messages, tokenize=False) == "<bos>user: the cat<eos>"
    torch_model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert torch_model.generation_config.eos_token_id == [tokenizer.eos_id, 7]


@pytest.mark.parametrize(("node", "chats"), [(LLAMA, False), (LLAMA, True), (BERT, False)], ids=str)
def test_the_code_of_the_card_runs(trained, tmp_path, monkeypatch, node, chats):
    source = trained(node)
    if chats:
        source = replace(source, template=default_template(source.tokenizer))
    export_hugging_face(source, tmp_path / "hf", ORIGIN)
    monkeypatch.chdir(tmp_path / "hf")
    blocks = re.findall(
        r"```python\n(.*?)```", (tmp_path / "hf" / "README.md").read_text(), re.DOTALL
    )
    assert len(blocks) == (2 if node is LLAMA else 1)
    for block in blocks:
        assert ("apply_chat_template(" in block) == chats
        exec(block, {})
