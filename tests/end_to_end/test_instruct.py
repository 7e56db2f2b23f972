"""Instruction tuning in real processes: killed and resumed to the same state, evaluated, and talked with."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from mlxlab.inference.chat import load_chat
from mlxlab.inference.generate import GenerationConfig
from support.commands import command
from support.processes import (
    environment,
    final_state,
    killed_and_resumed,
    passed,
    run_here,
    succeed_here,
    tiny_overrides,
)
from support.pseudo_terminal import Keyboard, run_in_terminal

main = command("generate")

SHORT = tiny_overrides(
    "trainer.max_steps=12", "trainer.eval_every=6", "checkpointing.every_steps=4"
)
GREEDY = GenerationConfig(temperature=0.0)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conversations")
    for name, count in (("train", 80), ("other", 9)):
        answers = [f"{n} " * (1 + n % 5) for n in range(count)]
        rows = [{"prompt": f"{name} {n}?", "completion": text} for n, text in enumerate(answers)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = ["model=transformer", "data=instruct", f"data.source={folder}/train.jsonl"]
    more += ["data.seq_len=64", "data.tokenizer.vocab_size=300", "data.valid_fraction=0.2"]
    settings = [setting for setting in SHORT if "baselines" not in setting]
    return [*settings, *more, "data.shuffle.window=20"]


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    finished = succeed_here(*settings, f"hydra.run.dir={folder}")
    return folder, finished


def test_a_killed_run_resumes_to_the_same_state(settings, trained, tmp_path):
    assert killed_and_resumed(settings, tmp_path, 4) == final_state(trained[1])


def test_other_conversations_are_evaluated_without_the_training_data(settings, trained):
    source = next(setting for setting in settings if setting.startswith("data.source="))
    other = source.replace("train", "other")
    assert "| loss" in succeed_here(f"run={trained[0]}", other, script="evaluate").stdout


def test_a_run_keeps_its_template_whatever_becomes_of_the_file(settings, tmp_path):
    template, run = tmp_path / "mine.jinja", f"hydra.run.dir={tmp_path / 'run'}"
    template.write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    own = [*(s for s in settings if "max_steps" not in s), f"data.chat_template={template}", run]
    succeed_here(*own, "trainer.max_steps=4")
    losses = []
    for change in ("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}", None):
        template.write_text(change) if change else template.unlink()
        losses.append(succeed_here(f"run={tmp_path / 'run'}", script="evaluate").stdout)
    assert losses[0] == losses[1]
    resumed = succeed_here(*own, "resume=auto", "trainer.max_steps=6")
    assert "inference/chat_template.jinja" in resumed.stderr


def talk(folder, lines, *more):
    args = ["generate", f"run={folder}", "chat=true", *more]
    command = [sys.executable, "-m", "mlxlab", *args]
    return subprocess.run(
        command, input=lines, env=environment(), capture_output=True, timeout=100, check=False
    )


def test_a_chat_answers_each_line_until_it_is_told_to_exit(trained):
    options = ["max_tokens=5", "temperature=0", "context_length=200", "system=Be kind."]
    lines = b"train 3?\n\ntrain 4?\n/help\n /quit now\n/reset\n//train 5?\n/exit\nignored\n"
    finished = passed(talk(trained[0], lines, *options))
    assert b"/reset forgets the conversation" in finished.stderr
    assert finished.stderr.count(b"unknown command /quit") == 1
    request = replace(GREEDY, max_tokens=5, context_length=200)
    answers = []
    for messages in (["train 3?", "train 4?"], ["/train 5?"]):
        chat = load_chat(trained[0], system="Be kind.")
        for message in messages:
            chunks = chat.reply(message, request).chunks
            answers.append("".join(chunk.text for chunk in chunks))
    assert finished.stdout.decode() == "".join(f"{answer}\n" for answer in answers)
    assert [each["content"] for each in chat.messages] == ["/train 5?", answers[-1]]


def test_a_chat_forgets_the_oldest_messages_when_the_context_is_full(trained):
    chat = load_chat(trained[0], system="Be kind.")
    request = replace(GREEDY, max_tokens=4, context_length=60)
    forgotten = []
    for n in range(4):
        reply = chat.reply(f"train {n}?", request)
        list(reply.chunks)
        forgotten.append(reply.forgotten)
    assert forgotten[0] == 0
    assert 2 in forgotten
    assert chat.messages[-2]["content"] == "train 3?"


SLOW_CHAT = """
import sys, time
from mlxlab.cli.command import run_command
from mlxlab.inference import chat
fast = chat.generate
def slow(*args):
    for number, chunk in enumerate(fast(*args)):
        yield chunk
        if number == 2:
            print("<SLOW>", end="", flush=True)
            time.sleep(60)
chat.generate = slow
real = chat.Chat.reply
def reply(self, text, *args):
    print("<HISTORY", len(self.messages), *(bool(each["content"]) for each in self.messages), ">", flush=True)
    return real(self, text, *args)
chat.Chat.reply = reply
chat.ChatTokenizer.end_ids = frozenset()
sys.exit(run_command("mlxlab.cli.generate", sys.argv[1:]))
"""


def test_ctrl_c_stops_an_answer_and_at_the_prompt_the_chat(trained, tmp_path):
    (tmp_path / "chat.py").write_text(SLOW_CHAT)
    args = [str(tmp_path / "chat.py"), f"run={trained[0]}", "chat=true", "max_tokens=30"]
    args += ["temperature=0"]
    typed = [("> ", "train 3?\n"), ("<SLOW>", "\x03"), ("stopped\n> ", "train 4?\n")]
    typed += [("<SLOW>", "\x03"), ("\n> ", "\x03")]
    screen = run_in_terminal(args, 100, keyboard=[Keyboard(*each) for each in typed])
    assert screen.code == 0, screen.text
    assert screen.text.count("the answer is stopped") == 2
    assert "<HISTORY 0 >" in screen.text
    assert "<HISTORY 2 True True >" in screen.text, "the message and what there was of its answer"


@pytest.mark.parametrize(
    ("line", "more", "code", "message"),
    [
        (b"a<eos>\n", [], 65, "the special token <eos>"),
        (b"abc " * 99, [], 65, "in the context of the model"),
        (b"\xff\n", [], 65, "standard input:1: is not UTF-8"),
        (b"", ["prompt=x"], 2, "chat=true: expected neither"),
    ],
)
def test_an_error_of_a_chat_is_one_line(trained, capsys, monkeypatch, line, more, code, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))
    assert main([f"run={trained[0]}", "chat=true", *more]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1


def test_a_model_without_a_chat_template_says_so(trained, capsys, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "run")
    (folder / "inference" / "chat_template.jinja").unlink()
    assert main([f"run={folder}", "chat=true"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "has no chat template: expected a run of data=instruct" in line


def test_encoders_are_refused_in_one_line(settings, tmp_path):
    finished = run_here(*settings, "model=bert", f"hydra.run.dir={tmp_path}/a")
    assert finished.returncode == 2
    assert "expected a model that predicts the next token" in finished.stderr
