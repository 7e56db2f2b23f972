"""`generate` with the model of a run, the same model from the store, and errors in one line."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest

from end_to_end.test_streaming import SMALL
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.text_generator import load_generator, read_prompts
from support.commands import command
from support.processes import environment, succeed_here

main = command("generate")


OMITTED = ("tracking", "trainer.max_steps", "trainer.eval")
SHORT = [arg for arg in SMALL if not arg.startswith(OMITTED)]


def train(home, *args):
    lines = [{"text": f"Line {n} tells of {n * n} sheep. Zo\u00eb \u2603 " * 3} for n in range(60)]
    (home / "text.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = [*SHORT, "trainer.max_steps=6", "trainer.eval_every=6"]
    return succeed_here(*settings, f"data.source={home}/text.jsonl", *args)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A decoder and an encoder, trained for a few steps."""
    home = tmp_path_factory.mktemp("home")
    for model in ("transformer", "bert"):
        train(home, f"model={model}", "tracking=none", f"hydra.run.dir={home}/{model}")
    return home


def generate(home, *args, capsys, model="transformer"):
    code = main([f"run={home}/{model}", *args])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def test_a_text_is_continued_by_its_seed(home, capsys):
    args = ["prompt=Line 7 tells", "max_tokens=20", "temperature=2", "top_k=0"]
    first = generate(home, *args, "seed=1", capsys=capsys)
    assert first.startswith("Line 7 tells")
    assert first == generate(home, *args, "seed=1", capsys=capsys)
    assert first != generate(home, *args, "seed=2", capsys=capsys)


def test_the_streamed_text_is_that_of_the_tokens(home, capsys):
    streamed = generate(home, "prompt=Line", "max_tokens=60", "temperature=0", capsys=capsys)
    writer = load_generator(home / "transformer")
    [text] = writer.texts(["Line"], GenerationConfig(max_tokens=60, temperature=0.0))
    assert streamed == f"Line{text}\n"
    assert writer.context == 32, "the length of the rows in training"
    assert writer.tokens("", new_document=False) == [writer.tokenizer.eos_id]
    own = writer.tokenizer.encode("Line", special=False)
    assert writer.tokens("Line", new_document=False) == own


def test_a_file_of_prompts_gives_a_json_line_for_each_in_order(home, tmp_path, capsys):
    prompts = ["Line 1", "Line 2 tells of", "Zo\u00eb"]
    (tmp_path / "prompts.txt").write_text("\n\n".join(prompts))
    objects = [json.dumps({"prompt": prompt}) for prompt in prompts]
    (tmp_path / "prompts.jsonl").write_text("\n".join(objects))
    args = ["max_tokens=6", "stop=[zzz]", "batch_size=2"]
    lines = generate(home, f"prompts={tmp_path}/prompts.txt", *args, capsys=capsys)
    assert lines == generate(home, f"prompts={tmp_path}/prompts.jsonl", *args, capsys=capsys)
    results = [json.loads(line) for line in lines.splitlines()]
    assert [result["prompt"] for result in results] == prompts
    assert {result["end"] for result in results} <= {"length", "end token"}
    single = [*args[:2], "batch_size=1"]
    assert lines == generate(home, f"prompts={tmp_path}/prompts.txt", *single, capsys=capsys)


def test_malformed_prompts_are_named_by_line(tmp_path):
    contents = {"a.txt": b"fine\n\xff\xfe\n", "b.jsonl": b'{"prompt": "a"}\n{"text": "b"}\n'}
    messages = {"a.txt": ":2:1", "b.jsonl": ":2:1", "c.jsonl": ":1:1", "d.txt": "no prompt"}
    for name, data in (contents | {"c.jsonl": b'{"prompt": 7}\n', "d.txt": b"\n \n"}).items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=messages[name]):
            read_prompts(tmp_path / name)
    with pytest.raises(InputNotFoundError):
        read_prompts(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="regular file"):
        read_prompts(tmp_path / "pipe")


def test_a_prompt_longer_than_the_context_is_truncated_with_a_warning(home, capsys):
    args = ["prompt=Line 7 tells of many sheep", "context_length=4", "max_tokens=2"]
    assert main([f"run={home}/transformer", *args]) == 0
    assert "truncated to its last 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["run=HOME/transformer", "max_token=3"], 2, "unknown key; did you mean max_tokens?"),
        (["run=HOME/transformer", "prompt=a", "prompts=b"], 2, "one of the two"),
        (["run=HOME/transformer", "checkpoint=HOME/nowhere"], 66, "nowhere"),
        (["run=HOME/nowhere"], 66, "expected a run folder"),
        (["run=HOME/model.guf"], 66, "did you mean HOME/model.gguf?"),
        (["run=HOME/transformer", "prompts=~no-such-user/prompts"], 66, "~no-such-user/prompts"),
        (["run=HOME/bert"], 2, "masked"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(home, capsys, args, code, message):
    (home / "model.gguf").touch()
    assert main([arg.replace("HOME", str(home)) for arg in args]) == code
    printed = capsys.readouterr()
    assert message.replace("HOME", str(home)) in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


SERVE = """
import json, sys, mlflow, pandas as pd
text, gap, params = pd.DataFrame({"text": ["Line 7 tells", "Line"]}), pd.DataFrame({"text": ["Line 7 <mask> of"]}), {}
models = [mlflow.pyfunc.load_model(location) for location in sys.argv[1:]]
print(json.dumps([
    models[0].predict(text, params={"temperature": 0.0, "max_tokens": 5})["continuation"].tolist(),
    models[0].predict(text, params={"temperature": 0.0, "max_tokens": 5, "stop": ["e"]})["continuation"].tolist(),
    len(models[0].predict(text)["continuation"]),
    models[1].predict(gap)["filled"].tolist(),
]))
"""


@pytest.mark.slow
def test_models_from_the_store_continue_and_fill_texts(tmp_path):
    home = tmp_path
    for model in ("transformer", "bert"):
        store = ["tracking.wait=60", f"tracking.uri=sqlite:///{home}/store.db"]
        train(home, f"model={model}", *store, f"hydra.run.dir={home}/{model}")
    with sqlite3.connect(f"file:{home}/store.db?mode=ro", uri=True) as connection:
        query = "select artifact_location from logged_models order by creation_timestamp_ms"
        locations = [location for (location,) in connection.execute(query)]
    command = [sys.executable, "-c", SERVE, *locations]
    quiet = environment(MLFLOW_DISABLE_TELEMETRY="true")
    done = subprocess.run(command, cwd=home, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written, stopped, count, filled = json.loads(done.stdout.splitlines()[-1])
    writer = load_generator(home / "transformer")
    request = GenerationConfig(max_tokens=5, temperature=0.0)
    assert written == writer.texts(["Line 7 tells", "Line"], request)
    assert stopped == [text.partition("e")[0] for text in written]
    assert count == 2
    assert filled[0].startswith("Line 7 ")
    assert filled[0].endswith(" of")
