"""Language models on streamed text, in real processes: they learn, and resume exactly after a kill."""

import gzip
import json
import re

import pytest

from mlxlab.data.sources.text_files import BLOCK_BYTES
from mlxlab.record.run_file import read_run
from support.processes import (
    TINY,
    final_state,
    killed_and_resumed,
    run,
    start,
    succeed,
    succeed_here,
    wait_for,
)
from support.text import FORMATS, write_texts

OMITTED = ("trainer.", "callbacks.", "data.prefetch", "data.baselines", "checkpointing.")
SMALL = [setting for setting in TINY if not setting.startswith(OMITTED)]
SMALL += ["data=streaming", "data.tokenizer.vocab_size=300", "data.seq_len=32"]
SMALL += ["data.shuffle.window=10", "data.valid_fraction=0.2", "trainer.epochs=null"]
SMALL += ["trainer.max_steps=16", "trainer.learning_rate=0.01", "trainer.eval_every=8"]
SMALL += ["trainer.log_every=4", "trainer.schedule.warmup=2", "checkpointing.every_steps=4"]


def lines(count):
    texts = [f"Line {n} tells of {n * n} sheep and {n % 7} dogs. " * 4 for n in range(count)]
    return [json.dumps({"text": text}) for text in texts]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.jsonl"
    path.write_text("\n".join(lines(60)) + "\n")
    return f"data.source={path}"


def losses(finished):
    return [float(loss) for loss in re.findall(r"valid/loss ([\d.]+)", finished.stderr)]


@pytest.mark.parametrize("model", ["bert", "cnn_hybrid"])
def test_masked_language_models_learn_from_streamed_text(tmp_path, corpus, model):
    settings = [*SMALL, f"model={model}", corpus, f"hydra.run.dir={tmp_path}"]
    settings += ["model.num_filters=8", "model.kernel_sizes=[2,3]"] if model == "cnn_hybrid" else []
    finished = succeed_here(*settings)
    first, second = losses(finished)
    assert second < first < 5.8
    assert read_run(tmp_path).evaluation.results[0].metrics["bits_per_byte"] > 0


def test_a_killed_streaming_run_resumes_to_the_same_state_with_prefetch_and_from_memory(
    tmp_path, corpus
):
    settings = [*SMALL, "model=transformer", corpus]
    whole = [*settings, "data.prefetch=0", f"hydra.run.dir={tmp_path / 'uninterrupted'}"]
    uninterrupted = succeed_here(*whole)
    again = [*settings, f"hydra.run.dir={tmp_path / 'killed'}", "resume=auto"]
    process = start(*again)
    wait_for(tmp_path / "killed" / "checkpoints" / "step-00000008", process)
    process.kill()
    process.communicate()
    resumed = run(*again, "data.streaming=false")
    assert "resumed from step-" in resumed.stderr, resumed.stderr
    assert final_state(resumed) == final_state(uninterrupted)


def test_a_mixture_of_paths_with_dots_resumes_to_the_same_state(tmp_path):
    for name in ("a.txt", "b.txt"):
        texts = [f"Line {n} of {name} tells of {n * n} sheep. " * 4 for n in range(200)]
        (tmp_path / name).write_text("".join(texts))
    mixture = f"data.mixture={{{tmp_path}/a.txt: 3, {tmp_path}/b.txt: 1}}"
    check_resumed([*SMALL, "model=transformer", mixture], tmp_path)


def check_resumed(settings, folder, step=8):
    """A run that is killed after a step and resumed ends as an uninterrupted one."""
    uninterrupted = succeed_here(*settings, f"hydra.run.dir={folder / 'uninterrupted'}")
    assert killed_and_resumed(settings, folder / "killed", step) == final_state(uninterrupted)


@pytest.mark.fault_injection
@pytest.mark.parametrize("model", ["bert", "cnn_hybrid", "transformer"])
@pytest.mark.parametrize("step", [4, 8, 12])
def test_every_model_killed_while_streaming_resumes_to_the_same_state(
    tmp_path, corpus, model, step
):
    masking = "data.packing.mask_across_documents=true"
    check_resumed([*SMALL, f"model={model}", corpus, masking], tmp_path, step)


@pytest.mark.fault_injection
@pytest.mark.parametrize("formats", [[ending] for ending in FORMATS] + [FORMATS])
def test_a_run_on_any_format_and_on_a_mixture_of_all_resumes_to_the_same_state(tmp_path, formats):
    names = []
    for ending in formats:
        texts = [f"Line {n} of {ending} tells of {n * n} sheep. " * 4 for n in range(60)]
        names.append(write_texts(tmp_path / f"text.{ending}", texts))
    source = f"data.source={names[0]}"
    if len(names) > 1:
        source = f"data.mixture={{{', '.join(f'{name}: 1' for name in names)}}}"
    units = "data.reading.document_unit=line"
    check_resumed([*SMALL, "model=transformer", source, units], tmp_path)


@pytest.mark.fault_injection
def test_a_malformed_record_after_the_trained_text_does_not_end_a_run_that_is_trained(tmp_path):
    records = lines(20_000)
    good = "\n".join(records)
    assert len(good) > 2 * BLOCK_BYTES  # Records are read a block at a time.
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(f"{good}\n{{\n{records[0]}".encode()))
    (tmp_path / "valid.jsonl").write_text("\n".join(records[:10]), encoding="utf-8")
    settings = [*SMALL, "model=transformer", f"data.source={tmp_path}/train.jsonl.gz"]
    settings += [f"data.valid_source={tmp_path}/valid.jsonl", "data.shuffle.window=5"]
    settings += ["data.tokenizer.train_examples=5", "trainer.max_steps=8"]
    finished = succeed(*settings, f"hydra.run.dir={tmp_path / 'run'}")
    assert (tmp_path / "run" / "STATUS.finished").exists()
    assert "Learned nothing: no better than unigram model." in finished.stdout
    evaluation = read_run(tmp_path / "run").evaluation
    assert {"unigram", "trigram"} <= evaluation.results[0].baselines.keys()
    assert evaluation.counted_tokens > 0
