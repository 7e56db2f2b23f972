"""Which base model exported adapters name: the pretrained one, unless the run has other weights below them by now."""

import json

import pytest

from support.peft_runs import (
    SIZES,
    base_of,
    export,
    resume,
    train,
    train_without_adapters,
    write_text,
)

NO_SIZES = (*SIZES, "data.tokenizer.vocab_size")
LORA = "model/adapter=lora"


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


@pytest.mark.slow
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
