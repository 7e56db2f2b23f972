"""The site builds without warnings, loads nothing from elsewhere, and is readable in a browser at any width."""

import os
import re
import subprocess
import sys

import pytest

from support.browser import BROWSER, evaluate, show
from support.processes import ROOT

PAGES = [
    "index.html",
    "how_to/sweeps.html",
    "reference/config/trainer.html",
    "explanation/claims.html",
]
SEARCH = """(async () => {
  document.querySelector("#__search").click();
  const query = document.querySelector("[data-md-component=search-query]");
  query.focus();
  query.value = "learning rate schedule";
  query.dispatchEvent(new KeyboardEvent("keyup", {key: "e"}));
  for (let waited = 0; waited < 200; waited++) {
    await new Promise((done) => setTimeout(done, 100));
    const results = document.querySelectorAll(".md-search-result__item a");
    if (results.length) return results[0].href;
  }
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "documentation", f"out={out}"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert float(re.search(r"pages in ([\d.]+) s", done.stdout)[1]) < 60
    return out


def test_a_page_that_loads_or_links_to_something_missing_is_a_fault(site, tmp_path):
    from documentation.site_check import faults

    assert faults(site) == []
    (tmp_path / "a.css").write_text("@font-face { src: url(https://example.com/font) }")
    (tmp_path / "b.html").write_text(
        '<script src="//example.com/a.js"></script><img src="c.png"><a href="#d">d</a><a href="https://example.com">e</a>'
    )
    assert faults(tmp_path) == [
        "b.html: loads //example.com/a.js",
        "b.html: no such page: c.png",
        "b.html: no such anchor: #d",
        "a.css: loads from elsewhere",
    ]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("page", PAGES)
def test_a_browser_shows_a_page_without_overflow_and_requests(site, tmp_path, page, width, scheme):
    shown = show(site / page, tmp_path / "profile", width=width, scheme=scheme)
    assert shown.scroll_width == width
    assert {address.partition(":")[0] for address in shown.requests} <= {"file", "data"}
    assert len(shown.png) > 10_000


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_search_works_without_a_server(site, tmp_path):
    assert evaluate(site / "index.html", tmp_path / "profile", SEARCH).startswith(site.as_uri())
