"""`info`: exact parameter counts and sizes in memory."""

import json
import os
import re
import signal
import time
from operator import itemgetter

import pytest

from mlxlab.cli.info import count
from support.commands import command
from support.labelled import write_csv
from support.processes import succeed_here, tiny_overrides

main = command("info")


def test_the_command_prints_the_exact_count_of_each_preset(capsys):
    assert main(["presets"]) == 0
    rows = capsys.readouterr().out.splitlines()
    nano = next(row for row in rows if row.startswith("| nano "))
    counts = ["3,320,450", "3,336,448", "4,053,763", "3,821,953", "3,622,786", "3,622,528"]
    assert re.findall(r"[\d,]+", nano) == counts
    assert main(["presets", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["parameters"]
    expected = count("transformer", "language_modelling", "nano", 16_000)
    assert written["nano"]["transformer LM"] == expected == 3_622_528
    bert_base = 109_482_240  # as published
    assert count("bert", "classification", "medium", 30_522, 2) == bert_base + 2 * 769


def test_a_sparse_file_of_30_gigabytes_is_one_line_within_seconds(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\na,b\n")
    os.truncate(path, 30 * 2**30)
    began = time.process_time()
    assert main(["data", f"data.source={path}"]) == 65
    assert time.process_time() - began < 10
    assert len(capsys.readouterr().err.splitlines()) == 1


SMALL = ["model.hidden_size=32", "model.num_layers=1", "model.num_heads=2"]
SMALL += ["model.intermediate_size=32"]


def measured(capsys, *args):
    """What `info --json` prints on the first step of a run."""
    assert main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_first_step_of_a_run_is_measured_on_its_largest_batch(tmp_path, capsys):
    texts = [*(f"word{n} " * (1 + n % 3) for n in range(198)), "long " * 90, "longer " * 90]
    rows = [{"text": text, "label": "xy"[n % 2]} for n, text in enumerate(texts)]
    source = write_csv(tmp_path / "rows.csv", rows)
    data = ["data=text_classification", "model=bert", f"data.source={source}"]
    step = measured(capsys, *data, *SMALL, "data.batch_size=4")
    assert step["rows"] == 4
    assert step["tokens_per_row"] > 90
    assert step["trained_parameters"] == sum(step["parameters"].values())
    weights = 4 * step["trained_parameters"]
    assert 4 * weights < step["peak_memory"] < step["resident_memory"] < step["available_memory"]
    assert 0 < step["seconds"] < 60
    larger = measured(capsys, *data, *SMALL, "data.batch_size=40")
    assert larger["peak_memory"] > step["peak_memory"]


@pytest.mark.slow
def test_the_step_is_that_of_the_run_with_its_micro_batches_teachers_and_adapters(tmp_path, capsys):
    folder = tmp_path / "run"
    succeed_here(*tiny_overrides("trainer.max_steps=2"), f"hydra.run.dir={folder}")
    whole = measured(capsys, *SMALL, "data.batch_size=128")
    optimized = ["trainer=optimized", "trainer.step.accumulate=8"]
    accumulated = measured(capsys, *SMALL, "data.batch_size=128", *optimized)
    assert accumulated["peak_memory"] < whole["peak_memory"] / 2
    distilled = ["trainer=distill", f"trainer.teachers=[{folder}]"]
    alone = measured(capsys, *SMALL, "data.batch_size=1")  # Weights outweigh activations.
    student = measured(capsys, *SMALL, "data.batch_size=1", *distilled)
    assert student["peak_memory"] > alone["peak_memory"]
    adapted = measured(capsys, *SMALL, f"model.init_from={folder}", "model/adapter=lora")
    assert adapted["trained_parameters"] < sum(adapted["parameters"].values()) / 2


def kill_itself(cfg):
    os.kill(os.getpid(), signal.SIGKILL)


def fail_to_allocate(cfg):
    raise RuntimeError("[malloc] Unable to allocate 10 bytes.")


@pytest.mark.parametrize("step", [kill_itself, fail_to_allocate])
def test_a_step_that_does_not_fit_in_memory_is_one_line_and_exit_code_2(step, capsys, monkeypatch):
    monkeypatch.setattr("mlxlab.run.first_step._step_of_config", step)
    assert main(SMALL) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "does not fit in memory" in line


def test_an_unknown_name_gets_the_nearest_one(capsys):
    expected = {"preset": "presets", "presets vocab=3": "vocab_size", "runn=outputs/np": "run?"}
    expected |= {"model.hiden_size=3": "hidden_size", "presets vocab_size=10^200": "vocab_size"}
    for args, name in expected.items():
        assert main(args.split()) == 2
        assert name in capsys.readouterr().err


def own_rows(path, **fault):
    """A file of 120 rows, with this fault in the eighth."""
    names = ("Anna", "Bert", "Carl", "Dora")
    rows = [{"id": n, "who": f"{names[n % 4]} number {n}", "kind": "xy"[n % 2]} for n in range(120)]
    return f"data.source={write_csv(path, [*rows[:7], rows[7] | fault, *rows[8:], *rows[:3]])}"


def test_rows_of_your_own_are_counted_as_a_run_would_read_them(tmp_path, capsys):
    source = own_rows(tmp_path / "own.csv", kind="")
    columns = ["data.text_column=who", "data.target=kind", "model=bert"]
    assert main(["data", source, *columns, "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    facts = itemgetter("name", "type", "missing", "values")
    found = [list(facts(each)) for each in checked["columns"]]
    assert found == [["id", "integer", 0, 120], ["who", "text", 0, 120], ["kind", "category", 1, 2]]
    assert (checked["left_out"], sum(checked["rows"].values())) == (1, 122)
    assert sum(checked["classes"].values()) == checked["rows"]["training"]
    assert any("with the same input as" in line for line in checked["messages"])


def test_without_names_of_columns_those_of_the_file_are_listed(tmp_path, capsys):
    source = own_rows(tmp_path / "own.csv")
    for option in ("data=text_classification", "data=table"):
        assert main(["data", source, option, "seed=3", "--json"]) == 0
        assert {*json.loads(capsys.readouterr().out)} == {"columns", "rows"}
    wrong = {"data=titanic": 2, "data.target=knd": 65, "data.target=knd data.text_column=who": 65}
    for args, code in wrong.items():
        assert main(["data", source, *args.split()]) == code
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["data", "data.target=kind"]) == 2
    assert capsys.readouterr().err.startswith("data.source=")
