"""Malformed configurations, by override and by file: one line each, exit 2, nothing created, nothing trained."""

from pathlib import Path

import pytest

from support.configs import line, user_config  # noqa: F401

HEAD = "# @package _global_\n"

OVERRIDES = """\
trainer.learning_rte=1 -> unknown key; did you mean trainer.learning_rate?
++trainer.epoch=1 -> did you mean trainer.epochs?
data.target=Survived -> unknown key; it is of data=table or text_classification
modle=bert -> did you mean model?
model/sise=nano -> there is no group model/sise; did you mean model/size?
model=brt -> model has no option brt; did you mean bert?
trainer.epochs=abc -> expected a whole number >= 1 or auto or null, got abc (text)
trainer.log_every=null -> expected a whole number >= 1, got null
model.adapter=lora -> did you mean model/adapter=lora?
trainer.learning_rate=nan -> expected a number > 0
trainer.learning_rate='1e-3' -> got 1e-3 (text)
seed=-1 -> expected a whole number >= 0
seed=18446744073709551616 -> got 18446744073709551616 (too large)
model.num_heads=5 -> 5 heads do not divide a hidden size of 128
model.vocab_size=99 -> not a key of the config: the program passes it
data.templates=[] -> of length >= 1
model.position_embedding=rop -> expected one of learned, rope, got rop
data.templates=[basic,narative] -> data.templates.1=narative: expected one of basic
objective=valid/los -> expected one of valid/loss
trainer.epochs=${missing.key} -> ${missing.key}: there is no such key
name=${name} -> an interpolation in a circle
name=${oc.env:MLXLAB_NOPE} -> the environment variable MLXLAB_NOPE is not set
name=${nope:1} -> nope
hydra.run.dirr=x -> hydra.run.dirr
hydra.run.dir=??? -> expected the path of a folder
data.source=~/a b.csv -> cannot be read
~model -> expected an option of model; there is bert
~seed -> missing; expected a whole number
data.source=. -> expected a file
trainer.epochs -> expected key=value
name=[ -> cannot be read
seed=1,2 -> put -m in front
name={_target_:mlxlab.models.bert.Bert} -> expected text or null
callbacks.growth.operations=[{id: a, op: widen, when: {or_steps: 1}}] -> callbacks.growth.operations.0.feed_forward: missing; expected a whole number >= 1
tags=[1] -> Cannot merge DictConfig with ListConfig
trainer.parallel=tensor -> expected one of none, data, fsdp, got tensor
--confg=job -> --confg: unknown flag; did you mean --cfg?
--config-dir=nowhere -> not a folder of config files
--config-name=trian -> trian
"""
BY_OVERRIDE = [
    *(tuple(row.split(" -> ")) for row in OVERRIDES.splitlines()),
    ("hydra.run.dir='~/x'", f"~ is not expanded here; expected {Path.home()}/x"),
    ("name=" + "[" * 3000 + "]" * 3000, "nested more than 30 deep"),
    ("name=a\x1b[31mb", "a control character"),
    ("name='${'", "name="),
]


@pytest.mark.parametrize(("override", "expected"), BY_OVERRIDE, ids=range(len(BY_OVERRIDE)))
def test_a_malformed_override_gets_one_line_and_exit_2(line, override, expected):
    message = line.refuses(override)
    assert expected in message
    key = override.lstrip("+~").partition("=")[0].strip()
    assert message.lstrip("~").startswith(key) or override.startswith("--")


BY_FILE = {
    "tabs": ("trainer:\n\tepochs: 1\n", ":3: ", "found character that cannot start any token"),
    "broken": ("trainer: [1, 2\n", ":", "broken YAML"),
    "a key twice": ("seed: 1\nname: a\nseed: 2\n", ":4: ", "the key seed is defined twice"),
    "a number as a key": ("tags:\n  1.5: 1\n", ":3: ", "the key 1.5 is not text; quote it"),
    "deep": ("a: " + "[" * 3000 + "]" * 3000, ":2: ", "maximum nesting depth"),
    "deep in blocks": ("\n".join(" " * i + "a:" for i in range(300)), ":", "more than 30 deep"),
    "UTF-16": ("seed: 1\n".encode("utf-16"), "mine.yaml: ", "not UTF-8 (byte 0)"),
    "invalid UTF-8": (b"seed: 1\nname: \xff\n", "mine.yaml: ", "not UTF-8 (byte 14)"),
    "NUL": (b"seed: 1\nname: a\0b\n", ":", "control characters are not allowed"),
    "tag": ("name: !!python/object/apply:os.system [id]\n", ":2: ", "the tag"),
    "empty": ("", ":", "expected a mapping of keys to values"),
    "two documents": ("seed: 1\n---\nseed: 2\n", ":", "expected a single document"),
    "alias inside itself": ("tags: &a\n  x: *a\n", ":", "nested more than 30 deep"),
}


@pytest.mark.parametrize("name", BY_FILE)
def test_a_malformed_file_gets_one_line_with_its_location_and_exit_2(line, user_config, name):
    content, location, expected = BY_FILE[name]
    message = line.refuses(*user_config(content if isinstance(content, bytes) else HEAD + content))
    assert expected in message
    assert location in message
    assert "mine.yaml" in message


IN_FILE = [
    ("trainer: {learning_rte: 1}\n", "trainer.learning_rte", "did you mean trainer.learning_rate?"),
    ("defaults:\n  - override /model: brt\n", "", "did you mean bert?"),
    ("trainer: {epochs: abc}\n", "trainer.epochs", "got abc (text)"),
    ("seed: null\n", "seed", "got null"),
    ("trainer:\n  max_steps: 5\n  schedule: {warmup: 6}\n", "", "longer than the run of 5"),
    ("data:\n  templates:\n    - basic\n    - bsic\n", "data.templates.1", "expected one of basic"),
    ("name: ${missing.key}\n", "name", "there is no such key"),
    ("tags:\n  - a\n", "experiment/mine", "Cannot merge DictConfig with ListConfig"),
]


@pytest.mark.parametrize(("content", "key", "expected"), IN_FILE)
def test_a_wrong_value_in_a_file_gets_one_line_with_its_key_and_exit_2(
    line, user_config, content, key, expected
):
    message = line.refuses(*user_config(HEAD + content))
    assert key in message
    assert expected in message


def test_a_missing_mandatory_value_is_reported(line, user_config):
    sizes = "num_layers: 1\nnum_heads: 1\nintermediate_size: 8\n"
    text = f"_target_: mlxlab.models.bert.Bert\nhidden_size: ???\n{sizes}"
    user_config(text, name="model/mine.yaml")
    flags = user_config("{}", name="experiment/mine.yaml")[:2]
    message = line.refuses(*flags, "model=mine", "model/size=none")
    assert message == "model.hidden_size=???: missing; expected a whole number >= 1"


def test_words_and_numbers_that_yaml_once_read_otherwise_are_text(line, user_config):
    content = "\ufeff" + HEAD + "name: no\ntags: {on: 12:30, octal: 0777}\n"
    assert line(*user_config(content)) == 0
    assert line.runs[0][0].name == "no"
    assert dict(line.runs[0][0].tags) == {"on": "12:30", "octal": "0777"}


def test_an_alias_bomb_is_refused_by_its_expanded_size(line, user_config):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        bomb += f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    assert "more than 20,000 values" in line.refuses(*user_config(HEAD + bomb))


def test_fifty_megabytes_are_refused_unread(line, user_config):
    flags = user_config(HEAD + "name: " + "x" * 50_000_000)
    assert "larger than 1048576 bytes" in line.refuses(*flags)


def test_warm_up_may_be_a_fraction_but_not_longer_than_the_run(line):
    line.refuses("trainer.max_steps=10", "trainer.schedule.warmup=11")
    assert line("trainer.max_steps=10", "trainer.schedule.warmup=0.5") == 0
    assert line("trainer.max_steps=10", "trainer.schedule.warmup=10") == 0
    tokens = ["trainer.epochs=null", "trainer.max_tokens=1000", "trainer/schedule=wsd"]
    assert line(*tokens, "trainer.schedule.warmup=5") == 0


def test_a_fold_that_there_is_not_is_refused_before_the_first_job(line):
    message = line.refuses("-m", "data.folds=3", "data.fold=0,7")
    assert message == "data.fold=7: expected less than data.folds=3"


def test_all_errors_are_reported_at_once_at_most_ten(line):
    wrong = ["modle=bert", "model=brt", "trainer.learning_rte=1", "seed=-1", "trainer.epochs=x"]
    wrong.append("name=1")
    message = line.refuses(*wrong, lines=6)
    assert all(f"{override}: " in message for override in wrong)
    line.refuses(*[f"+k{n}=1" for n in range(14)], lines=11)
    assert line.lines[-1] == "and 4 more"


def test_a_secret_in_the_environment_is_never_shown(line, user_config, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2secret")
    monkeypatch.setenv("MLXLAB_PLAIN", "hunter2secret")
    monkeypatch.setenv("MLXLAB_DATABASE", "postgres://me:hunter2secret@host/db")
    overrides = ["name=${oc.env:AWS_SECRET_ACCESS_KEY}", "name=${oc.env:MLXLAB_DATABASE}"]
    overrides += ["seed=${oc.env:MLXLAB_PLAIN}", "seed=${oc.decode:${oc.env:MLXLAB_PLAIN}}"]
    for override in (*overrides, "model._target_=${oc.env:MLXLAB_PLAIN}"):
        line(override)
        assert line.code in (2, 77)
        assert "hunter2secret" not in line.out + line.err
        assert override in line.err
    for flags in (["--cfg", "job"], ["--cfg", "job", "--resolve"], ["--cfg", "all"]):
        line(*flags, "name=${oc.env:AWS_SECRET_ACCESS_KEY}")
        assert "hunter2secret" not in line.out + line.err
    line(*user_config(HEAD + "name: ${oc.env:AWS_SECRET_ACCESS_KEY}\n"))
    assert "hunter2secret" not in line.err
    assert "name=" in line.err


def test_a_number_from_the_environment_is_a_number(line, monkeypatch):
    monkeypatch.setenv("MLXLAB_STEPS", "7")
    assert line('trainer.max_steps="${oc.decode:${oc.env:MLXLAB_STEPS}}"') == 0
    assert line.runs[0][0].trainer.max_steps == 7
    refusal = line.refuses("trainer.max_steps=${oc.env:MLXLAB_STEPS}", lines=None)
    assert "got ${oc.env:MLXLAB_STEPS} (text)" in refusal


def test_conflicts_between_keys_are_refused(line):
    assert "are all null: set one of them" in line.refuses("trainer.epochs=null")
    lm = ["data=streaming", "model=transformer"]
    assert "expected trainer=distill" in line.refuses(*lm, "trainer.teachers=[outputs/t]")
    assert "num_kv_heads=3: 3 key-value" in line.refuses(lm[1], "model.num_kv_heads=3")
    micro = ["trainer=optimized", "trainer.step.accumulate=1000"]
    assert "1000 micro-batches of a batch of" in line.refuses(*micro)
    for betas in ("[0.9]", "[0.9,0.99,0.999]"):
        assert "of length <= 2" in line.refuses(f"trainer.optimizer.betas={betas}")


def test_an_unknown_key_suggests_the_nearest_key_anywhere(line):
    """terminal/test_nearest.py has more of them."""
    for override, expected in (
        ("lr=0.1", "trainer.learning_rate"),
        ("model.dim=64", "model.hidden_size"),
    ):
        assert line.refuses(override) == f"{override}: unknown key; did you mean {expected}?"
    assert "did you mean" not in line.refuses("out=x")


ODD_VALUES = """\
hydra.run.dir=${oc.env:NOPE}
hydra.run.dir=${nope}
hydra.run.dir='${'
hydra.launcher=null
hydra.job=null
-m hydra.sweep.dir=${nope}
-m hydra.launcher=null
-m seed=0,1 hydra.sweeper=search
--hydra-help model=brt
--info nonsense
-sc query=bash
tags={true:1}
tags={1.5:1}"""


@pytest.mark.parametrize("typed", ODD_VALUES.splitlines())
def test_an_odd_value_of_a_key_of_hydra_is_refused_without_a_traceback(line, typed):
    assert line(*typed.split()) in (0, 2, 77), line.err
    assert "Traceback" not in line.err
