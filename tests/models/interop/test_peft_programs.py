"""Exported adapters in PEFT: the logits of the run, offline."""

import pytest

from support.commands import command
from support.peft_runs import (
    SIZES,
    base_of,
    compare,
    export,
    train,
    train_without_adapters,
    write_text,
)

main = command("export")

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (extra interop)"
)
torch = pytest.importorskip("torch", reason="torch is not installed (extra interop)")
peft = pytest.importorskip("peft", reason="peft is not installed (extra interop)")

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("source"))


@pytest.mark.parametrize("adapter", ["lora", "dora", "qlora"])
def test_a_decoder(text, tmp_path, adapter, monkeypatch):
    options = [
        "model.tie_embeddings=false",
        "model.adapter.targets=[layers.*, head.out]",
        "model.adapter.train=[norm]",
    ]
    codes = ["model.quantization.group_size=32"] if adapter == "qlora" else []
    run = train(
        tmp_path / "run", "model=transformer", f"model/adapter={adapter}", *options, *codes, *text
    )
    out = export(run, tmp_path / "peft")
    compare(run, out, transformers.AutoModelForCausalLM, out / "base")
    monkeypatch.chdir(out)
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    loaded = {}
    exec(code, loaded)
    tokenizer = transformers.AutoTokenizer.from_pretrained("base")
    assert loaded["tokenizer"]("the cat")["input_ids"] == tokenizer("the cat")["input_ids"]
    assert type(loaded["model"]).__name__ == "PeftModelForCausalLM"
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(out)
    assert type(loaded).__name__ == "PeftModelForCausalLM"


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
    out = export(run, tmp_path / "peft")
    compare(run, out, transformers.AutoModelForSequenceClassification, out / "base")


def test_a_masked_model(text, tmp_path):
    run = train(tmp_path / "run", "model=bert", "model/adapter=lora", *text)
    out = export(run, tmp_path / "peft")
    compare(run, out, transformers.AutoModelForMaskedLM, out / "base")


def test_adapters_on_a_published_folder(text, tmp_path):
    """It has the norm before training, which is trained with the adapters."""
    first = train_without_adapters(tmp_path / "first", "model=transformer", *text)
    assert main(["hf", f"run={first}", f"out={tmp_path}/published"]) == 0
    options = [
        f"model.pretrained={tmp_path}/published",
        "model/adapter=lora",
        "model.adapter.train=[norm]",
    ]
    without = (*SIZES, "data.tokenizer.vocab_size")
    run = train(tmp_path / "run", "model=transformer", *options, *text, without=without)
    out = export(run, tmp_path / "peft")
    assert base_of(out) == f"{tmp_path}/published"
    compare(run, out, transformers.AutoModelForCausalLM, base_of(out))
