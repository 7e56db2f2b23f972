"""Pages of blocks: escaped, complete, and readable on a phone."""

import base64

import pytest

from mlxlab.views.blocks import Card, Commands, Image, Listing, Page, Paragraph, Section, png_width
from mlxlab.views.pages import block_page, write_page
from mlxlab.views.tables import Column, Table, numeric
from support.browser import BROWSER, evaluate
from support.html_pages import BEYOND, ParsedPage

HOSTILE = "</pre><script>alert(1)</script><img src=http://evil/x onerror=alert(2)>&amp;'\""
HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
PNG = HEAD + (640).to_bytes(4, "big") + (480).to_bytes(4, "big") + bytes(9)


def test_every_text_of_a_page_is_escaped():
    blocks = [
        Table([Column(HOSTILE)], [[HOSTILE]]),
        Paragraph(HOSTILE),
        Commands({HOSTILE: HOSTILE}),
        Listing(HOSTILE),
    ]
    card = Card(HOSTILE, HOSTILE, [HOSTILE], {HOSTILE: HOSTILE})
    page = Page(HOSTILE, HOSTILE, [Section(HOSTILE, blocks)], HOSTILE, cards=[card])
    html = block_page(page)
    parsed = ParsedPage(html)
    assert {"script", "img"}.isdisjoint(parsed.tags)
    assert parsed.addresses == parsed.handlers == []
    assert parsed.text.count("onerror=alert(2)") == 16
    assert "default-src 'none'" in html


def test_a_table_shows_its_first_rows_and_counts_the_others():
    table = Table([Column("n")], [[str(n)] for n in range(207)], rest="in t.csv")
    parsed = ParsedPage(block_page(Page("t", "", [Section("s", [table])])))
    assert parsed.tags.count("tr") == 200 + 1
    assert "7 more in t.csv." in parsed.text


def test_an_image_is_in_the_page_and_as_wide_as_its_figure():
    large = PNG + bytes(range(256)) * 400
    html = block_page(Page("t", "", [Section("s", [Image(large, "a <plot>", 160)])]))
    [address] = ParsedPage(html).addresses
    assert base64.b64decode(address.removeprefix("data:image/png;base64,")) == large
    assert 'alt="a &lt;plot&gt;" style="max-width: 384px"' in html


def test_only_png_files_of_a_sensible_size_are_images():
    assert png_width(PNG) == 640
    for data in (b"", b"<svg onload=alert(1)>" * 9, HEAD + b"\xff" * 17, HEAD):
        with pytest.raises(ValueError, match=r"PNG|pixels"):
            png_width(data)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_on_a_phone_a_wide_table_scrolls_in_its_box(tmp_path):
    numbers = numeric(*(f"metric {n}" for n in range(12)))
    wide = Table([Column("name"), *numbers], [["x" * 90, *["0.1234"] * 12]])
    page = Page("t" * 80, "/a/path" * 30, [Section("s", [wide])])
    path = write_page(tmp_path / "page.html", block_page(page))
    assert evaluate(path, tmp_path / "profile", BEYOND, width=390) == [True, [], [True]]
