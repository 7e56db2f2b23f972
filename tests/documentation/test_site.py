"""The site builds without warnings, loads nothing from elsewhere, and is readable in a browser at any width."""

import re
import subprocess
import sys
from dataclasses import fields

import pytest

import mlxlab
from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.loaded_model import LoadedModel
from support.browser import BROWSER, show
from support.processes import ROOT

PAGES = ["index.html", "how_to/sweeps.html", "reference/configuration.html"]
PAGES += ["explanation/claims.html"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_a_page_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        elements = re.findall(r"<(?:script|img|iframe|source|link)\b[^>]*>", page.read_text())
        external = [each for each in elements if re.search(r"(?:src|href)=\"?(?:https?:)?//", each)]
        assert external == [], page
    assert not [sheet for sheet in site.rglob("*.css") if "url(http" in sheet.read_text()]


def test_the_page_on_the_python_api_has_every_method_and_option(site):
    text = (site / "reference" / "python_api.html").read_text()
    shown = set(re.findall(r'id="mlxlab\.[\w.]*\.(\w+)"', text))
    assert {*mlxlab.__all__} - {"__version__"} <= shown
    methods = {name for name in vars(LoadedModel) if not name.startswith("_")}
    assert methods <= shown
    options = {field.name for field in fields(GenerationConfig)}
    assert options <= set(re.findall(r"<code>(\w+)</code>", text))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("page", PAGES)
def test_a_browser_shows_a_page_without_overflow_and_requests(site, tmp_path, page, width, scheme):
    shown = show(site / page, tmp_path / "profile", width=width, scheme=scheme)
    assert shown.scroll_width == width
    assert {address.partition(":")[0] for address in shown.requests} <= {"file", "data"}
    assert len(shown.png) > 10_000
