"""Pages of blocks: escaped, complete, and readable on a phone."""

import pytest

from mlxlab.views.blocks import Card, Commands, Listing, Page, Paragraph, Plots, Section
from mlxlab.views.pages import block_page, write_page
from mlxlab.views.plots import Plot, Row, RowPlot, Series
from mlxlab.views.tables import Column, Table, numeric
from support.browser import BROWSER, evaluate
from support.html_pages import BEYOND, ParsedPage

HOSTILE = "</pre><script>alert(1)</script><img src=http://evil/x onerror=alert(2)>&amp;'\""


def test_every_text_of_a_page_is_escaped():
    blocks = [
        Table([Column(HOSTILE)], [[HOSTILE]]),
        Paragraph(HOSTILE),
        Commands({HOSTILE: HOSTILE}),
        Listing(HOSTILE),
        Plots([RowPlot(HOSTILE, HOSTILE, [Row(HOSTILE, [1.0])])]),
        Plots([Plot(HOSTILE, [Series(HOSTILE, [(0, 1.0)]), Series(HOSTILE, [(1, 2.0)])], HOSTILE)]),
    ]
    card = Card(HOSTILE, HOSTILE, [HOSTILE], {HOSTILE: HOSTILE})
    page = Page(HOSTILE, HOSTILE, [Section(HOSTILE, blocks)], HOSTILE, cards=[card])
    html = block_page(page)
    parsed = ParsedPage(html)
    assert {"script", "img"}.isdisjoint(parsed.tags)
    assert parsed.addresses == parsed.handlers == []
    assert parsed.text.count("onerror=alert(2)") == 30
    assert "default-src 'none'" in html


def test_a_table_shows_its_first_rows_and_counts_the_others():
    table = Table([Column("n")], [[str(n)] for n in range(207)], rest="in t.csv")
    parsed = ParsedPage(block_page(Page("t", "", [Section("s", [table])])))
    assert parsed.tags.count("tr") == 200 + 1
    assert "7 more in t.csv." in parsed.text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_on_a_phone_a_wide_table_scrolls_in_its_box(tmp_path):
    numbers = numeric(*(f"metric {n}" for n in range(12)))
    wide = Table([Column("name"), *numbers], [["x" * 90, *["0.1234"] * 12]])
    page = Page("t" * 80, "/a/path" * 30, [Section("s", [wide])])
    path = write_page(tmp_path / "page.html", block_page(page))
    assert evaluate(path, tmp_path / "profile", BEYOND, width=390) == [True, [], [True]]
