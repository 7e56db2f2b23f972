"""Which base model exported adapters name: the pretrained one, unless the run has other weights below them by now."""

import json

import pytest
import tokenizers

from support.peft_runs import (
    SIZES,
    base_of,
    compare,
    export,
    resume,
    train,
    train_without_adapters,
    write_text,
)

NO_SIZES = (*SIZES, "data.tokenizer.vocab_size")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def published(text, tmp_path_factory):
    """A folder of transformers with a small decoder."""
    from support.commands import command

    main = command("export")

    folder = tmp_path_factory.mktemp("published")
    run = train_without_adapters(folder / "run", "model=transformer", *text)
    assert main(["hf", f"run={run}", f"out={folder}/model"]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def larger(published, tmp_path_factory):
    """Its tokenizer with two more tokens."""
    folder = tmp_path_factory.mktemp("larger")
    tokenizer = tokenizers.Tokenizer.from_file(str(published / "tokenizer.json"))
    tokenizer.add_tokens(["zebra", "zz"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


LORA = "model/adapter=lora"
CHANGES = {  # of the weights below the adapters: overrides of the run, and of its resume
    "tokenizer": ([LORA], ["data.tokenizer.path={larger}"]),
    "training": ([], [LORA, "model.adapter.alpha=64"]),
}


@pytest.fixture(scope="module", params=CHANGES)
def changed(request, text, published, larger, tmp_path_factory):
    """A run that began with the published weights, and has others below its adapters since it was resumed."""
    begun, resumed = CHANGES[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "run"
    args = ["model=transformer", f"model.pretrained={published}", *begun, *text]
    train(
        folder, *args, without=(*NO_SIZES, *(["model.adapter.alpha"] if LORA not in begun else []))
    )
    return resume(folder, *(each.format(larger=larger) for each in resumed))


def test_weights_that_a_resume_changed_are_written(changed, tmp_path):
    out = export(changed, tmp_path / "peft", "checkpoint=last")
    assert base_of(out) == str(out / "base")


@pytest.mark.filterwarnings("ignore")  # of programs that are not ours
def test_peft_computes_the_same_on_the_base_that_is_written(changed, tmp_path):
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (extra interop)"
    )
    pytest.importorskip("peft", reason="peft is not installed (extra interop)")
    out = export(changed, tmp_path / "peft", "checkpoint=last")
    compare(changed, out, transformers.AutoModelForCausalLM, base_of(out), "last")


def test_a_resume_that_only_trains_further_keeps_the_base(text, published, tmp_path):
    run = train(
        tmp_path / "run",
        "model=transformer",
        f"model.pretrained={published}",
        LORA,
        *text,
        without=NO_SIZES,
    )
    resume(run, "model.dropout=0.1", "trainer.learning_rate=0.02")
    assert base_of(export(run, tmp_path / "peft", "checkpoint=last")) == str(published)
    config = json.loads((run / "run.json").read_text())["command"]["overrides"]
    assert "model.dropout=0.1" in config
