"""`export hf` and `export gguf`: the commands of the documentation, and what a user does wrong."""

import json
import re
import resource
import shlex
import shutil

import numpy as np
import pytest

from mlxlab.inference.restore import save_ensemble
from mlxlab.models.pretrained.gguf import read_gguf
from mlxlab.record.run_record import SplitResult
from support.commands import command
from support.processes import ROOT, run_here, tiny_overrides
from support.run_records import edit_run

main = command("export")

WORDS = ("the", "a", "cat", "dog", "tree", "house", "sees", "likes", "small", "green")
MAX_BYTES = 9000  # fewer than the weights have


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("export"), np.random.default_rng(0)
    lines = [json.dumps({"text": " ".join(rng.choice(WORDS, 30)) + "."}) for _ in range(100)]
    (folder / "text.jsonl").write_text("\n".join(lines) + "\n")
    data = ["data=streaming", f"data.source={folder}/text.jsonl", "data.seq_len=16"]
    data += ["data.tokenizer.vocab_size=300", "trainer.max_steps=2", "trainer.eval_every=2"]
    settings = tiny_overrides("model=transformer", *data)
    settings.remove("data.baselines=false")  # not a key of texts
    done = run_here(*settings, f"hydra.run.dir={folder}/run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_the_commands_of_the_page_on_language_models(run, tmp_path, capsys):
    text = (ROOT / "docs/how_to/training/language_models.md").read_text(encoding="utf-8")
    commands = re.findall("^mlxlab export ((?:hf|gguf) .*)$", text, re.M)
    outputs = []
    for typed in commands:
        kind, source, out = shlex.split(typed, comments=True)
        assert source.startswith("run=outputs/")
        outputs.append(tmp_path / out.removeprefix("out=outputs/"))
        assert main([kind, f"run={run}", f"out={outputs[-1]}"]) == 0
        assert capsys.readouterr().out == f"{outputs[-1]}\n"
    folder, file = outputs
    names = {"config", "generation_config", "model", "tokenizer", "tokenizer_config", "README"}
    assert {path.stem for path in folder.iterdir()} == names
    assert read_gguf(file)[1]["general.name"] == "run"
    card = (folder / "README.md").read_text()
    for part in ("| loss (nats per token) ", "| tokenizer ", "mlxlab train tracking=none"):
        assert part in card


@pytest.mark.parametrize("best_step", [2, 1])
def test_the_card_has_the_final_evaluation_if_it_is_of_the_same_weights(run, tmp_path, best_step):
    def change(record):
        record.training.best_step = best_step
        result = SplitResult("test", 40, {"loss": 1.25}, {"loss": (1.0, 1.5)})
        record.evaluation.results.append(result)

    copy = shutil.copytree(run, tmp_path / "run")
    edit_run(copy, change)
    assert main(["hf", f"run={copy}", f"out={tmp_path}/hf"]) == 0
    card = (tmp_path / "hf" / "README.md").read_text()
    row = re.search(r"^\| loss .* 1\.25\d* .* 1\.0000 to 1\.5000 ", card, re.M)
    assert (row is not None) == (best_step == 2)
    assert ("valid/loss" in card) == (best_step == 1)


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(run, tmp_path, capsys):
    no_checkpoint, ensemble, out = tmp_path / "new", tmp_path / "ensemble", tmp_path / "out"
    shutil.copytree(run / "inference", no_checkpoint / "inference")
    ensemble.mkdir()
    save_ensemble(ensemble, [run, run])
    before = sorted(tmp_path.rglob("*"))
    for kind, source, output, code, message in [
        ("hf", tmp_path, out, 66, "expected a run folder"),
        ("hf", no_checkpoint, out, 76, "no usable checkpoint (there is none)"),
        ("hf", f"{run} checkpoint=step-9", out, 76, "no step-9"),
        ("hf", ensemble, out, 2, "expected one model, got an ensemble; export its members"),
        ("hf", run, ensemble, 73, "exists already; expected the name of a new one"),
        ("hf", run, run / "inference" / "hf", 2, f"a folder of the run; expected {run}/hf"),
        ("hf", run, ensemble / "ensemble.json" / "hf", 74, "File exists"),
        ("gguf", run, out, 2, "expected the name of a file that ends in .gguf"),
        ("gguf", run, run / "checkpoints" / "x.gguf", 2, "a folder of the run"),
        ("gguf", f"{run} dtype=bfloat16", f"{out}.gguf", 2, "expected one of float32, float16"),
    ]:
        assert main([kind, *f"run={source}".split(), f"out={output}"]) == code, message
        error = capsys.readouterr().err
        assert (message in error, len(error.splitlines())) == (True, 1), error
    assert sorted(tmp_path.rglob("*")) == before, "something is left half-made"


@pytest.mark.parametrize(("kind", "name"), [("hf", "out"), ("gguf", "out.gguf")])
def test_a_full_disk_is_one_line_and_leaves_nothing(run, tmp_path, capsys, kind, name):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_BYTES, limits[1]))  # Python ignores SIGXFSZ
    try:
        code = main([kind, f"run={run}", f"out={tmp_path}/{name}"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert (code, len(error.splitlines())) == (74, 1), error
    assert error.startswith(f"out={tmp_path}/{name}: ")
    assert not list(tmp_path.iterdir())
