"""The site builds without warnings and loads nothing from elsewhere."""

import re
import subprocess
import sys
from dataclasses import fields

import pytest

import mlxlab
from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.loaded_model import LoadedModel
from support.processes import ROOT


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
