"""Pages: escaped, complete, and drawn whatever the numbers are."""

import re

import pytest

from mlxlab.html.blocks import (
    MAX_ROWS,
    Card,
    Column,
    Commands,
    Listing,
    Page,
    Paragraph,
    Section,
    Table,
    png_width,
)
from mlxlab.html.page import MAX_TEXT, clean, render_page, write_page
from support.browser import BROWSER, evaluate
from support.html_pages import BEYOND, ParsedPage

HOSTILE = "</pre><script>alert(1)</script><img src=http://evil/x onerror=alert(2)>&amp;'\""


def test_every_text_of_a_page_is_escaped():
    blocks = [
        Table([Column(HOSTILE, short=HOSTILE)], [[HOSTILE]]),
        Listing(HOSTILE),
    ]
    section = Section(HOSTILE, blocks)
    page = Page(HOSTILE, HOSTILE, [section], HOSTILE, cards=[Card(HOSTILE, HOSTILE, [HOSTILE])])
    parsed = ParsedPage(render_page(page))
    assert {"script", "img"}.isdisjoint(parsed.tags)
    assert parsed.addresses == parsed.handlers == []
    assert parsed.text.count("onerror=alert(2)") == 11


def test_text_is_limited_and_without_control_characters_and_credentials():
    assert clean("a\x00b\x1b[31m\u202ec\n\td\ud800") == "a b [31m c\n\td "
    assert clean("s3://me:secret123@host/x") == "s3://***@host/x"
    assert len(clean("x" * 10**6)) < MAX_TEXT + 50


def test_a_share_does_not_break_before_its_sign_but_in_code_to_copy():
    blocks = [Paragraph("9.4 % of a 100 % wool"), Table([Column("n", is_number=True)], [["5 %"]])]
    code = [Commands({"a": "name='3 %'"}), Listing("6 %")]
    html = render_page(Page("1 %", "2 %", [Section("s", [*blocks, *code])])).partition("<main>")[2]
    spaces = dict(re.findall(r"([\d.]+)(\s)%", html))
    assert "".join(spaces.values()) == "\u00a0" * 5 + " " * 2, spaces


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
        html = render_page(Page("t", "", [Section("s", [table])]))
        assert ("<script>" in html) == ("script-src 'sha256-" in html) == is_sortable
        assert "default-src 'none'" in html


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
    html = render_page(Page("t", "", [Section("s", [Commands({"path": text})])]))
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
