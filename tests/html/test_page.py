"""Pages: escaped, complete, and drawn whatever the numbers are."""

import math
import re

import pytest

from mlxlab.html.blocks import (
    MAX_ROWS,
    Card,
    Charts,
    Check,
    Column,
    Commands,
    Facts,
    Listing,
    Page,
    Paragraph,
    Sample,
    Section,
    Table,
    png_width,
)
from mlxlab.html.line_chart import MAX_POINTS, LineChart
from mlxlab.html.page import MAX_TEXT, clean, render_page, write_page
from support.browser import BROWSER, evaluate
from support.html_pages import BEYOND, ParsedPage

HOSTILE = "</pre><script>alert(1)</script><img src=http://evil/x onerror=alert(2)>&amp;'\""


def test_every_text_of_a_page_is_escaped():
    chart = LineChart(
        HOSTILE,
        {HOSTILE: [(0, 1.0), (1, 2.0)], "b": [(0, 1.0)]},
        x_label=HOSTILE,
        mark=(0.5, HOSTILE),
    )
    blocks = [
        Table([Column(HOSTILE, short=HOSTILE)], [[HOSTILE]]),
        Facts({HOSTILE: HOSTILE}),
        Listing(HOSTILE),
    ]
    section = Section(HOSTILE, [*blocks, Charts([chart])])
    page = Page(HOSTILE, HOSTILE, [section], HOSTILE, cards=[Card(HOSTILE, HOSTILE, [HOSTILE])])
    parsed = ParsedPage(render_page(page))
    assert {"script", "img"}.isdisjoint(parsed.tags)
    assert parsed.addresses == parsed.handlers == []
    assert parsed.text.count("onerror=alert(2)") == 17


def test_text_is_limited_and_without_control_characters_and_credentials():
    assert clean("a\x00b\x1b[31m\u202ec\n\td\ud800") == "a b [31m c\n\td "
    assert clean("s3://me:secret123@host/x") == "s3://***@host/x"
    assert len(clean("x" * 10**6)) < MAX_TEXT + 50


def test_a_share_does_not_break_before_its_sign_but_in_code_to_copy():
    blocks = [Paragraph("9.4 % of a 100 % wool"), Table([Column("n", is_number=True)], [["5 %"]])]
    code = [Commands({"a": "name='3 %'"}), Listing("6 %"), Sample("s", "7 %", "8 %")]
    html = render_page(Page("1 %", "2 %", [Section("s", [*blocks, *code])])).partition("<main>")[2]
    spaces = dict(re.findall(r"([\d.]+)(\s)%", html))
    assert "".join(spaces.values()) == "\u00a0" * 5 + " " * 4, spaces


def test_a_table_shows_its_first_rows_and_counts_the_others():
    page = Page(
        "t",
        "",
        [
            Section(
                "s",
                [Table([Column("n")], [[str(n)] for n in range(MAX_ROWS + 7)], rest="in t.csv")],
            )
        ],
    )
    parsed = ParsedPage(render_page(page))
    assert parsed.tags.count("tr") == MAX_ROWS + 1
    assert "7 more in t.csv." in parsed.text


def test_a_page_has_a_script_only_to_sort_tables():
    for is_sortable in (False, True):
        table = Table([Column("n")], [["1"]], is_sortable=is_sortable)
        html = render_page(Page("t", "", [Section("s", [table])], checks=[Check("good", "a", "b")]))
        assert ("<script>" in html) == ("script-src 'sha256-" in html) == is_sortable
        assert "default-src 'none'" in html


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0, 0.0],
        [5, 5, 5],
        [1e-12, 2e-12],
        [1e99, -1e99],
        [math.pi * 1e-9, 3.0],
        [-3.0, -2.5],
        [1e15, 1e15 + 1],
    ],
)
def test_charts_of_all_kinds_of_numbers_stay_inside_their_frame(values):
    drawing = LineChart("t", {"a": list(enumerate(values))}, mark=(0, "best")).draw()
    xs, ys = zip(
        *(map(float, point.split(",")) for point in drawing.paths["a"].split()), strict=True
    )
    assert 52 <= min(xs) <= max(xs) <= 388
    assert 12 <= min(ys) <= max(ys) <= 196
    assert 2 <= len(drawing.y_ticks) <= 9
    assert (
        len({label for _, label in drawing.y_ticks}) == len(drawing.y_ticks)
        or max(map(abs, values)) > 1e14
    )
    assert all(12 <= y <= 196 for y, _ in drawing.y_ticks)


def test_charts_leave_out_what_is_not_finite_and_thin_long_lines():
    points = [(step, None if step % 7 == 0 else 1.0 / (step + 1)) for step in range(10_000)]
    chart = LineChart("t", {"a": [*points, (10_000, 1e308)], "none": [(0, None)]})
    assert list(chart.finite) == ["a"]
    assert (
        max(y for _, y in LineChart("t", {"a": [(0, 1.0), (1, 1e308), (2, -1e308)]}).finite["a"])
        == 1.0
    )
    assert len(chart.finite["a"]) <= MAX_POINTS
    assert LineChart("t", {"a": [(0, None)]}).draw() is None


def test_charts_with_the_same_end_have_the_same_axis_from_0():
    lines = ([(10, 1.0), (20, 3.0), (95, 2.0)], [(30, 5.0), (90, 4.0)])
    drawings = [LineChart("t", {"a": line}, end=95).draw() for line in lines]
    assert drawings[0].x_ticks == drawings[1].x_ticks
    assert [label for _, label in drawings[0].x_ticks] == ["0", "20", "40", "60", "80"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("/home/someone/data/reviews.csv", ["/home/", "someone/", "data/", "reviews.csv"]),
        ("data.source=/home/someone/x", ["data.source=", "/home/", "someone/", "x"]),
        ("valid/accuracy of step 3", ["valid/accuracy of step 3"]),
        ("trainer.learning_rate=0.0001", ["trainer.learning_rate=", "0.0001"]),
        ("a_name_of_more_than_a_line_of_a_phone", ["a_", "name_", "of_", "more_"]),
        ("incomprehensibilities", ["incomprehensibilities"]),
    ],
)
def test_paths_break_at_slashes_and_not_inside_words(text, pieces):
    html = render_page(Page("t", "", [Section("s", [Facts({"path": text})])]))
    assert "<wbr>".join(pieces) in html
    assert text in ParsedPage(html).text


def test_what_follows_a_line_break_in_a_number_is_small():
    table = Table([Column("n", is_number=True)], [["0.5\n0.4 to <0.6>"]])
    assert "0.5<br><small>0.4 to &lt;0.6&gt;</small></td>" in render_page(
        Page("t", "", [Section("s", [table])])
    )


def test_only_png_files_of_a_sensible_size_are_images():
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
    assert png_width(head + (640).to_bytes(4, "big") + (480).to_bytes(4, "big") + bytes(9)) == 640
    for data in (b"", b"<svg onload=alert(1)>" * 9, head + b"\xff" * 17, head):
        with pytest.raises(ValueError, match=r"PNG|pixels"):
            png_width(data)


NUMBERS = [Column(f"metric {n}", is_number=True) for n in range(12)]
WIDE = Table([Column("name"), *NUMBERS], [["x" * 90, *["0.1234"] * 12]])
SENTENCES = Table(
    [Column("id", is_number=True), Column("text", is_text=True)], [["1", "/a/long/path" * 40]]
)
SORT = """document.querySelector("th").click(), [...document.querySelectorAll("td")].map(e => e.innerText)"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_on_a_phone_a_wide_table_scrolls_in_its_box_and_sentences_stand_below_the_other_cells(
    tmp_path,
):
    path = write_page(
        Page("t" * 80, "/a/path" * 30, [Section("s", [WIDE, SENTENCES])]), tmp_path / "page.html"
    )
    assert evaluate(path, tmp_path / "profile", BEYOND, width=390) == [True, [], [True, False]]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_tables_are_sorted_by_the_number_and_not_by_its_small_print(tmp_path):
    table = Table(
        [Column("n", is_number=True)], [["50\n1 to 2"], ["6\n700 to 800"]], is_sortable=True
    )
    path = write_page(Page("t", "", [Section("s", [table])]), tmp_path / "page.html")
    assert evaluate(path, tmp_path / "profile", SORT) == ["6\n700 to 800", "50\n1 to 2"]


def test_the_axis_of_zeros_begins_at_0():
    drawing = LineChart("t", {"a": [(3, 0.0)]}).draw()
    assert drawing is not None
    assert drawing.y_ticks[0][1] == "0"
    assert all(float(text) >= 0 for _, text in drawing.y_ticks)
