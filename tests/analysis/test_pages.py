"""The page of a comparison: escaped, complete, and readable on a phone."""

from dataclasses import replace

import pytest

from mlxlab.analysis.comparison import MethodResults, Subject, compare
from mlxlab.analysis.comparison_report import comparison_lines, write_report
from mlxlab.views.tables import Table, numeric
from support.browser import BROWSER, evaluate
from support.html_pages import BEYOND, ParsedPage

HOSTILE = "</pre><script>alert(1)</script><img src=http://evil/x onerror=alert(2)>&amp;'\"\x1b[31m"


def hostile_comparison(name=HOSTILE):
    methods = [
        MethodResults("a", {"seed 0": 0.5, "seed 1": 0.6}),
        MethodResults(name, {"seed 0": 0.7, "seed 1": 0.9, name: 0.1}),
    ]
    differs = {name: {"a": name, name: name}}
    subject = Subject(name, differs, {name: 0.4, "majority": 0.3})
    comparison = compare("valid/accuracy", methods, "a", subject=subject)
    return replace(comparison, warnings=[name], notes=[name], command=name)


def page_of(comparison, folder):
    write_report(comparison, folder, "comparison")
    return (folder / "comparison.html").read_text()


def test_every_text_of_a_page_is_escaped(tmp_path):
    html = page_of(hostile_comparison(), tmp_path)
    parsed = ParsedPage(html)
    assert {"script", "img"}.isdisjoint(parsed.tags)
    assert parsed.addresses == parsed.handlers == []
    assert parsed.text.count("onerror=alert(2)") > 5
    assert "\x1b" not in html
    assert "default-src 'none'" in html


def test_no_control_character_reaches_a_terminal():
    text = comparison_lines(hostile_comparison())
    assert "alert(1)" in text
    assert "\x1b" not in text


def test_a_table_shows_its_first_rows_and_counts_the_others(tmp_path):
    methods = [MethodResults(f"m{number}", {"seed 0": number / 1000}) for number in range(207)]
    parsed = ParsedPage(page_of(compare("valid/accuracy", methods, "m0"), tmp_path))
    assert "7 more." in parsed.text
    assert Table(numeric("n"), [["1"]] * 207).hidden == 7


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_on_a_phone_a_wide_table_scrolls_in_its_box(tmp_path):
    page_of(hostile_comparison("x" * 90), tmp_path)
    shown = evaluate(tmp_path / "comparison.html", tmp_path / "profile", BEYOND, width=390)
    assert shown[:2] == [True, []]
    assert any(shown[2])
