"""The ledger of claims agrees with the documentation, and is made by measuring."""

import json
import re
from dataclasses import replace

import pytest
from benchmarks.__main__ import main
from benchmarks.claims import ledger as ledger_module
from benchmarks.claims import measure
from benchmarks.claims.ledger import PAGE, one_line, read_ledger, without_links
from benchmarks.claims.page import render

from mlxlab.errors import DataError, ServiceUnavailableError
from support.processes import ROOT

FIGURE = re.compile(r"\d[\d,.]*(?= ?(?:M|GB|MB|s|x|%|seconds|minutes|hours|times|tokens/s)(?!\w))")
# Figures of the README that nobody measures.
SETTINGS = ("95 % intervals", "up to 1 % of", "less than 4 GB of memory")


@pytest.fixture(scope="module")
def ledger():
    return read_ledger()


def test_pages_and_bounds_agree_with_the_ledger(ledger):
    assert list(ledger.faults()) == []


def test_the_page_of_claims_is_up_to_date(ledger):
    assert PAGE.read_text() == render(ledger), "run: python -m benchmarks suite=claims"


def test_every_figure_of_the_readme_is_in_a_claim(ledger):
    readme = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    text = without_links(readme)
    for known in (*SETTINGS, *map(ledger.statement, ledger.claims)):
        text = text.replace(known, "")
    figures = [text[max(0, match.start() - 40) : match.end()] for match in FIGURE.finditer(text)]
    assert figures == []


def test_every_figure_links_to_its_claim(ledger):
    """The link is in the text of the claim, or close to it where that is output of a command."""
    for name, claim in ledger.claims.items():
        text = (ROOT / claim["page"]).read_text()
        links = [link.start() for link in re.finditer(rf"\]\([^()]*claims\.md#{name}\)", text)]
        where = without_links(text).index(ledger.statement(name))
        near = [len(without_links(text[:link])) for link in links]
        assert any(-200 < position - where < 1000 for position in near), name


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A project with a page, and two claims of it that one command measures."""
    (tmp_path / "README.md").write_text("It takes\n4.2 s, of which 30.0 % are waiting.\n")
    command = "echo run >> runs; echo '| seconds | 4.15 |'; echo 'waiting 1,030 ms'"
    common = {"topic": "Speed", "page": "README.md", "unit": "", "bound": "<= 50"}
    common["command"] = command
    seconds = {"id": "seconds", "text": "takes {0:.1f} s", "patterns": [r"seconds \| ([\d.]+)"]}
    share = {"id": "share", "text": "which {0:.1f} % are", "patterns": [r"([\d,]+) ms"]}
    share["scale"] = 0.0290291
    paths = (tmp_path / "claims.toml", tmp_path / "measured.json")
    monkeypatch.setattr(ledger_module, "ROOT", tmp_path)
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    monkeypatch.setattr(measure, "PAGE", tmp_path / "claims.md")
    monkeypatch.setattr(measure, "RECORDED", paths[1])
    monkeypatch.setattr(measure, "read_ledger", lambda: read_ledger(*paths))
    text = "older = []\n"
    for claim in (seconds, share):
        values = (common | claim).items()
        text += "[[claims]]\n" + "".join(f"{key} = {json.dumps(each)}\n" for key, each in values)
    paths[0].write_text(text)
    (tmp_path / "measured.json").write_text("{}")
    return tmp_path


def test_measuring_records_values_and_makes_the_page(small, capsys):
    assert main(["suite=claims", "only=seconds,share"]) == 0
    assert (small / "runs").read_text() == "run\n", "one command for both"
    measured = json.loads((small / "measured.json").read_text())
    assert measured["seconds"]["values"] == [4.15]
    assert measured["share"]["values"] == [pytest.approx(29.9, abs=0.01)]
    assert re.fullmatch(r"\w+ [\w-]+, \d+ cores, MLX [\d.]+", measured["share"]["machine"])
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["seconds: takes 4.2 s", "share: which 29.9 % are"]
    assert out[2:] == ["README.md: expected 'which 29.9 % are' (claim share)"]
    page = one_line((small / "claims.md").read_text())
    assert '| <a id="seconds"></a>`seconds`: takes 4.2 s |' in page


def test_a_claim_that_is_not_measured_or_exceeds_its_bound_is_a_fault(small):
    ledger = measure.read_ledger()
    assert [fault.partition(":")[0] for fault in ledger.faults()] == ["seconds", "share"]
    values = {"values": [51.0], "machine": "", "date": ""}
    measured = dict.fromkeys(("seconds", "share", "gone"), values)
    faults = list(replace(ledger, measured=measured).faults())
    assert "seconds: measured 51, claimed <= 50" in faults
    assert "measured.json: gone: no such claim" in faults
    pair = {"seconds": ledger.claims["seconds"] | {"bound": "<= 60, >= 60"}}
    twice = {"seconds": values | {"values": [51.0, 51.0]}}
    [fault, _] = replace(ledger, claims=pair, measured=twice).faults()
    assert fault == "seconds: measured 51, claimed >= 60"


def test_what_cannot_be_measured_is_one_line(small, capsys):
    assert main(["suite=claims", "only=second"]) == 2
    assert capsys.readouterr().err == "only=second: no such claim; did you mean seconds?\n"
    declared = small / "claims.toml"
    declared.write_text(declared.read_text().replace("echo run", "exit 3"))
    assert main(["suite=claims", "only=share"]) == ServiceUnavailableError.exit_code
    declared.write_text(declared.read_text().replace("exit 3 >> runs", "exit"))
    assert main(["suite=claims", "only=share"]) == DataError.exit_code
    assert "is not in the output of: exit; echo" in capsys.readouterr().err
    declared.write_text(declared.read_text().replace("bound", "bond"))
    assert main(["suite=claims"]) == DataError.exit_code
    assert "claims[0]: 'bound' is missing" in capsys.readouterr().err
