"""Instruction tuning in real processes: killed and resumed to the same state, evaluated, and talked with."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from mlxlab.inference import chat as chats
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
        rows = [
            {"prompt": f"{name} {n}?", "completion": f"{n} " * (1 + n % 5)} for n in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = ["model=transformer", "data=instruct", f"data.source={folder}/train.jsonl"]
    more += ["data.seq_len=64"]
    return [
        *(setting for setting in SHORT if "baselines" not in setting),
        *more,
        "data.tokenizer.vocab_size=300",
        "data.valid_fraction=0.2",
        "data.shuffle.window=20",
    ]


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    finished = succeed_here(*settings, f"hydra.run.dir={folder}")
    return folder, finished


def test_a_killed_run_resumes_to_the_same_state(settings, trained, tmp_path):
    assert killed_and_resumed(settings, tmp_path, 4) == final_state(trained[1])


def test_other_conversations_are_evaluated_without_the_training_data(settings, trained):
    source = next(setting for setting in settings if setting.startswith("data.source="))
    finished = succeed_here(
        f"run={trained[0]}", source.replace("train", "other"), script="evaluate"
    )
    assert "conversations of" in finished.stderr
    assert "| loss" in finished.stdout


def test_a_run_keeps_its_template_whatever_becomes_of_the_file(settings, tmp_path):
    template, run = tmp_path / "mine.jinja", f"hydra.run.dir={tmp_path / 'run'}"
    template.write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    own = [*(s for s in settings if "max_steps" not in s), f"data.chat_template={template}", run]
    succeed_here(*own, "trainer.max_steps=4")
    losses = []
    for change in (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}",
        None,
    ):
        template.write_text(change) if change else template.unlink()
        evaluated = succeed_here(f"run={tmp_path / 'run'}", script="evaluate")
        losses.append(evaluated.stdout)
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
    lines = (
        b"train 3?\n\ntrain 4?\n/help\n/quit\n/Quit\n /quit now\n/reset\ntrain 3?\n/exit\nignored\n"
    )
    finished = passed(talk(trained[0], lines, *options))
    assert b"/reset forgets the conversation" in finished.stderr
    assert b"//text sends the message /text" in finished.stderr
    unknown = [line for line in finished.stderr.decode().splitlines() if line.startswith("unknown")]
    assert unknown == [
        f"unknown command {name}; /help lists them" for name in ("/quit", "/Quit", "/quit")
    ]
    chat = load_chat(trained[0], system="Be kind.")
    request = replace(GREEDY, max_tokens=5, context_length=200)
    answers = [
        "".join(chunk.text for chunk in chat.reply(f"train {n}?", request).chunks) for n in (3, 4)
    ]
    assert finished.stdout.decode() == f"{answers[0]}\n{answers[1]}\n{answers[0]}\n"
    assert [message["content"] for message in chat.messages] == [
        "train 3?",
        answers[0],
        "train 4?",
        answers[1],
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("//train 3?", "/train 3?"),
        ("/ train", "/ train"),
        ("/3 of 4", "/3 of 4"),
        ("train //3", "train //3"),
    ],
)
def test_a_message_may_begin_with_a_slash(trained, monkeypatch, line, message):
    chat = load_chat(trained[0])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line.encode())))
    chats.talk(chat, replace(GREEDY, max_tokens=1))
    assert [each["content"] for each in chat.messages if each["role"] == "user"] == [message]


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


def test_a_chat_says_what_a_full_context_drops_also_in_a_terminal(trained):
    lines, options = (
        "".join(f"train {n}?\n" for n in range(4)),
        ["max_tokens=4", "temperature=0", "context_length=60"],
    )
    forgotten = "the context is full: the oldest 2 messages are forgotten"
    finished = talk(trained[0], lines.encode(), *options)
    assert finished.stderr.decode().count(forgotten) > 0
    command = ["-m", "mlxlab", "generate", f"run={trained[0]}", "chat=true", *options]
    screen = run_in_terminal(command, 100, typed=f"{lines}/exit\n")
    assert screen.code == 0
    assert screen.text.count(forgotten) == finished.stderr.decode().count(forgotten)


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
    keyboard = [
        Keyboard("> ", "train 3?\n"),
        Keyboard("<SLOW>", "\x03"),
        Keyboard("stopped\n> ", "train 4?\n"),
    ]
    screen = run_in_terminal(
        args, 100, keyboard=[*keyboard, Keyboard("<SLOW>", "\x03"), Keyboard("\n> ", "\x03")]
    )
    assert screen.code == 0, screen.text
    assert "Ctrl-C stops an answer" in screen.text.replace("\n", " ")
    assert screen.text.count("the answer is stopped") == 2
    assert "<HISTORY 0 >" in screen.text
    assert "<HISTORY 2 True True >" in screen.text, "the message and what there was of its answer"


def test_a_message_without_any_answer_is_forgotten(trained):
    chat = load_chat(trained[0])
    chat.reply("train 3?", replace(GREEDY, max_tokens=5)).chunks.close()
    chat.drop_unanswered()
    assert chat.messages == []
    list(chat.reply("train 3?", replace(GREEDY, max_tokens=5)).chunks)
    chat.messages[1]["content"] = "3"
    chat.drop_unanswered()
    assert len(chat.messages) == 2


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


def test_a_model_without_a_chat_template_says_so(trained, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    (trained[0] / "inference" / "chat_template.jinja").rename(tmp_path / "template")
    try:
        assert main([f"run={trained[0]}", "chat=true"]) == 2
    finally:
        (tmp_path / "template").rename(trained[0] / "inference" / "chat_template.jinja")
    printed = capsys.readouterr().err
    assert "has no chat template: expected a run of data=instruct" in printed
    assert len(printed.splitlines()) == 1


def test_encoders_are_refused_in_one_line(settings, tmp_path):
    finished = run_here(
        *[s for s in settings if s != "model=transformer"],
        "model=bert",
        f"hydra.run.dir={tmp_path}/a",
    )
    assert finished.returncode == 2
    assert "expected a model that predicts the next token" in finished.stderr
