"""Exported adapters in PEFT: the logits of the run, offline."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.cli.export import main
from mlxlab.inference.restore import restore_model
from support.processes import run_here, tiny_overrides

transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra interop)")
torch = pytest.importorskip("torch", reason="torch is not installed (extra interop)")
peft = pytest.importorskip("peft", reason="peft is not installed (extra interop)")

SHORT = ["trainer.max_steps=20", "trainer.eval_every=20", "trainer.learning_rate=0.01", "model.adapter.alpha=64"]
TEXT = ["data=streaming", "data.seq_len=32", "data.tokenizer.vocab_size=400"]
SIZES = ("model.num_layers", "model.hidden_size", "model.num_heads", "model.intermediate_size")
WORDS = ("the", "a", "cat", "dog", "tree", "house", "sees", "likes", "small", "green", "bird", "and", "with", "runs")

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("source") / "text.jsonl", np.random.default_rng(0)
    lines = [json.dumps({"text": " ".join(rng.choice(WORDS, 30)) + "."}) for _ in range(300)]
    path.write_text("\n".join(lines) + "\n")
    return [*TEXT, f"data.source={path}"]


def train(folder, *overrides, without=()):
    unused = [*without, *(["data.baselines"] if "data=streaming" in overrides else [])]
    settings = [each for each in tiny_overrides(*overrides, *SHORT) if each.split("=")[0] not in unused]
    done = run_here(*dict.fromkeys(settings), f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def compare(run, out, loader, base, atol=1e-4, **options):
    """Logits of the run, of PEFT with the base model, and of that alone, which must differ."""
    restored = restore_model(run)
    tokens = np.random.default_rng(1).integers(4, restored.encoder.tokenizer.vocab_size, (2, 12))
    mask = np.ones_like(tokens)
    mask[1, 8:] = 0
    tokens[1, 8:] = restored.encoder.tokenizer.pad_id
    expected = np.array(restored.model(mx.array(tokens), mx.array(mask)))
    inputs = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
    real = mask > 0 if expected.shape[:2] == mask.shape else slice(None)
    model = loader.from_pretrained(base, **options)
    adapted = peft.PeftModel.from_pretrained(model, out).eval()
    with torch.no_grad():
        np.testing.assert_allclose(adapted(**inputs).logits.numpy()[real], expected[real], atol=atol)
        with adapted.disable_adapter():
            difference = np.abs(adapted(**inputs).logits.numpy()[real] - expected[real]).max()
    assert difference > 1e-2, "the adapters change nothing"


def export(run, out, *options):
    assert main(["peft", f"run={run}", f"out={out}", *options]) == 0
    return out


@pytest.mark.parametrize("adapter", ["lora", "dora", "qlora"])
def test_a_decoder(text, tmp_path, adapter, monkeypatch):
    options = ["model.tie_embeddings=false", "model.adapter.targets=[layers.*, head.out]", "model.adapter.train=[norm]"]
    codes = ["model.quantization.group_size=32"] if adapter == "qlora" else []
    run = train(tmp_path / "run", "model=transformer", f"model/adapter={adapter}", *options, *codes, *text)
    out = export(run, tmp_path / "peft", "base=true")
    compare(run, out, transformers.AutoModelForCausalLM, out / "base")
    monkeypatch.chdir(out)
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    loaded = {}
    exec(code, loaded)
    tokenizer = transformers.AutoTokenizer.from_pretrained("base")
    assert loaded["tokenizer"]("the cat")["input_ids"] == tokenizer("the cat")["input_ids"]
    assert type(loaded["model"]).__name__ == "PeftModelForCausalLM"
    assert type(peft.AutoPeftModelForCausalLM.from_pretrained(out)).__name__ == "PeftModelForCausalLM"


@pytest.mark.parametrize(
    "options",
    [
        ["model=bert", "model/adapter=lora"],
        ["model=bert", "model/adapter=dora"],
        ["model=transformer", "model.classifier_bias=false", "model/adapter=lora"],
    ],
    ids=["bert_lora", "bert_dora", "llama"],
)
def test_a_classifier(tmp_path, options):
    run = train(tmp_path / "run", *options)
    out = export(run, tmp_path / "peft", "base=true")
    compare(run, out, transformers.AutoModelForSequenceClassification, out / "base")


def test_a_masked_model(text, tmp_path):
    run = train(tmp_path / "run", "model=bert", "model/adapter=lora", *text)
    out = export(run, tmp_path / "peft", "base=true")
    compare(run, out, transformers.AutoModelForMaskedLM, out / "base")


def test_adapters_on_a_published_folder(text, tmp_path, capsys):
    first = train(tmp_path / "first", "model=transformer", *text, without=("model.adapter.alpha",))
    assert main(["hf", f"run={first}", f"out={tmp_path}/published"]) == 0
    pretrained = ["model=transformer", f"model.pretrained={tmp_path}/published", "model/adapter=lora"]
    run = train(tmp_path / "run", *pretrained, *text, without=(*SIZES, "data.tokenizer.vocab_size"))
    out = export(run, tmp_path / "peft")
    name = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert name == f"{tmp_path}/published"
    compare(run, out, transformers.AutoModelForCausalLM, name)
    full = [f"model.pretrained={tmp_path}/published", *pretrained[:1], *text]
    changed = train(tmp_path / "full", *full, without=(*SIZES, "data.tokenizer.vocab_size", "model.adapter.alpha"))
    more = ["resume=auto", "model/adapter=lora", "trainer.max_steps=40", "tracking=none"]
    done = run_here(f"hydra.run.dir={changed}", *more)
    assert done.returncode == 0, done.stderr
    out = export(changed, tmp_path / "changed_peft", "checkpoint=last")
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] is None


def test_no_base_is_named_for_weights_that_are_nobody_elses(text, tmp_path, capsys):
    run = train(tmp_path / "run", "model=transformer", "model/adapter=lora", *text)
    export(run, tmp_path / "peft")
    assert "names no base model" in capsys.readouterr().err
