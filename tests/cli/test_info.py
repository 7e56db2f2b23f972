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
from support.processes import run_here, tiny_overrides

main = command("info")


def test_the_command_prints_the_exact_count_of_each_preset(capsys):
    assert main(["presets"]) == 0
    rows = capsys.readouterr().out.splitlines()
    nano = next(row for row in rows if row.startswith("| nano "))
    assert re.findall(r"[\d,]+", nano) == [
        *("3,320,450", "3,336,448", "4,053,763", "3,821,953", "3,622,786", "3,622,528"),
    ]
    assert main(["presets", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["parameters"]
    expected = count("transformer", "language_modelling", "nano", 16_000)
    assert written["nano"]["transformer LM"] == expected == 3_622_528


def test_a_sparse_file_of_30_gigabytes_is_one_line_within_seconds(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\na,b\n")
    os.truncate(path, 30 * 2**30)
    began = time.process_time()
    assert main(["data", f"data.source={path}"]) == 65
    assert time.process_time() - began < 10
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_counts_equal_published_ones():
    bert_base = 109_482_240
    assert count("bert", "classification", "medium", 30_522, 2) == bert_base + 2 * 769


SMALL = [
    "model.hidden_size=32",
    "model.num_layers=1",
    "model.num_heads=2",
    "model.intermediate_size=32",
]


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
    assert main([*data, *SMALL, "data.batch_size=4"]) == 0
    printed = capsys.readouterr().out
    assert f"trains {step['trained_parameters']:,} parameters" in printed
    assert f"4 rows of {step['tokens_per_row']} tokens" in printed


def test_the_step_is_that_of_the_run_with_its_micro_batches_teachers_and_adapters(tmp_path, capsys):
    folder = tmp_path / "run"
    done = run_here(*tiny_overrides("trainer.max_steps=2"), f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
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


def test_an_error_of_the_run_is_that_of_the_command(tmp_path, capsys):
    assert main(["model.hiden_size=3"]) == 2
    assert "hidden_size" in capsys.readouterr().err
    missing = f"data.source={tmp_path}/missing.csv"
    assert main(["data=table", "data.target=y", missing]) == 66
    assert len(capsys.readouterr().err.splitlines()) == 1


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
    assert main(["preset"]) == 2
    assert "presets" in capsys.readouterr().err
    assert main(["presets", "vocab=3"]) == 2
    assert "vocab_size" in capsys.readouterr().err
    assert main(["runn=outputs/np"]) == 2
    assert capsys.readouterr().err == "runn=outputs/np: unknown key; did you mean run?\n"


def test_an_impossible_number_is_refused_in_one_line(capsys):
    for arg in (f"vocab_size={10**23}", "vocab_size=10^200", "vocab_size=\u00b2", "classes=0"):
        assert main(["presets", arg]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_outliers_among_tokens_are_listed(tmp_path, capsys, monkeypatch):
    letters = "abcdefghijklmnopqrst" * 12
    texts = [*(letters[n : n + 200] for n in range(40)), " " * 9000 + "end", "a#b|c"]
    rows = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "text.jsonl").write_text("\n".join(rows))
    monkeypatch.setattr("mlxlab.config.paths.project_root", lambda: tmp_path)
    args = ["tokens", "model=transformer", "data=streaming", "data/tokenizer=characters"]
    args += [f"data.source={tmp_path}/text.jsonl", "data.valid_fraction=0.1", "data.seq_len=16"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\| frequent +\| ' ' +\| ", out, re.MULTILINE)
    assert re.search(r"^\| rare +\| '\\\|' +\| +\d+ \| +1 \|", out, re.MULTILINE)
    assert main([*args, "--json"]) == 0
    [first, *_] = json.loads(capsys.readouterr().out)["outliers"]
    assert (first["outlier"], first["token"]) == ("frequent", "' '")
    assert main(["tokens", "data=titanic"]) == 2
    assert "expected data=streaming" in capsys.readouterr().err


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
    assert main(["data", source, *columns]) == 0
    printed = capsys.readouterr().out
    assert "own.csv: 1 row (0.8 %) left out: " in printed


def test_a_row_in_another_encoding_is_left_out_of_a_file_of_utf8(tmp_path, capsys):
    texts = [f"{n},text {n},{'xy'[n % 2]}" for n in range(1, 200)]
    content = "\n".join(["id,who,kind", "0,caf\u00e9 0,x", *texts, ""]).encode("latin-1")
    (tmp_path / "own.csv").write_bytes(content + "200,caf\u00e9,x\n".encode())
    source = f"data.source={tmp_path}/own.csv"
    columns = ["data.text_column=who", "data.target=kind"]
    fault = f"{tmp_path}/own.csv:2: byte 0xe9 is not UTF-8; data.reading.encoding=cp1252"
    for _ in ("read", "from the cache"):
        assert main(["data", source]) == 0
        printed = capsys.readouterr().out
        assert f" rows, and 1 that cannot be read, the first: {fault}" in printed
    assert main(["data", source, *columns]) == 0
    printed = capsys.readouterr().out
    assert "own.csv: 1 row (0.5 %) left out: " in printed


def test_rows_that_are_truncated_are_counted(tmp_path, capsys):
    texts = [" ".join(str((n + 7) ** k) for k in range(1, 9)) for n in range(60)]
    rows = [{"who": text, "kind": "xy"[n % 2]} for n, text in enumerate(texts)]
    source = f"data.source={write_csv(tmp_path / 'own.csv', rows)}"
    columns = ["data.text_column=who", "data.target=kind", "model=bert"]
    args = ["data", source, *columns, "data.seq_len=8"]
    assert main([*args, "--json"]) == 0
    messages = json.loads(capsys.readouterr().out)["messages"]
    [message] = [each for each in messages if "are truncated" in each]
    assert message.startswith("60 of 60 rows")
    assert main(args) == 0
    assert message in capsys.readouterr().out


def test_without_names_of_columns_those_of_the_file_are_listed(tmp_path, capsys):
    source = own_rows(tmp_path / "own.csv")
    assert main(["data", source]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^\| kind +\| category +\| +0 \| +2 \| 'x' +\|$", printed, re.M)
    assert printed.startswith(f"{tmp_path}/own.csv: 123 rows\n\n| column")
    for option in ("data=text_classification", "data=table"):
        assert main(["data", source, option, "seed=3", "--json"]) == 0
        assert {*json.loads(capsys.readouterr().out)} == {"columns", "rows"}
    assert main(["data", source, "data=titanic"]) == 2
    assert "data=titanic: expected data=text_class" in capsys.readouterr().err
    for more in ([], ["data.text_column=who"]):
        assert main(["data", source, "data.target=knd", *more]) == 65
        assert "'knd'" in capsys.readouterr().err
    assert main(["data", "data.target=kind"]) == 2
    assert capsys.readouterr().err.startswith("data.source=")


def test_the_type_of_each_column_is_shown_and_a_fault_is_named(tmp_path, capsys):
    rows = [{"day": "2024-05-01", "gaps": n, "b": n % 2, "z": f"0{n}"} for n in range(60)]
    for row in rows[::3]:
        row["gaps"] = "NA"
    source = f"data.source={write_csv(tmp_path / 'own.csv', rows)}"
    assert main(["data", source, "--json"]) == 0
    columns = json.loads(capsys.readouterr().out)["columns"]
    assert [each["name"] for each in columns] == ["day", "gaps", "b", "z"]
    assert [each["type"] for each in columns] == ["datetime", "integer", "integer", "text"]
    assert "own.csv:2: column 'gaps': expected a finite number" in columns[1]["fault"]
    chosen = ["data.target=b", "data.types={gaps: category, z: category}", "--json"]
    assert main(["data", source, *chosen]) == 0
    columns = json.loads(capsys.readouterr().out)["columns"]
    assert [each["type"] for each in columns] == ["datetime", "category", "integer", "category"]
