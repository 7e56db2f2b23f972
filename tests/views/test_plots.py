"""Plots as SVG: inside their frames, well-formed whatever they are called, and with a title."""

import re
from xml.etree import ElementTree

import pytest

from mlxlab.views import render
from mlxlab.views.plots import Plot, Row, RowPlot, Series, short_label

NAMES = [
    "a/long/name/that/a/page/would/break/at/its/joints=1",
    "</svg><script>&amp;\x07",
    "x" * 900,
]
VALUES = [[0.0], [0.5, 0.5], [-1.7e308, 1.7e308], [0.0, 5e-324], [1e-310, 1e-310], [1e15, 1e15 + 1]]
VALUES += [[-0.001, 0.02, 7.0]]


def drawn(plot):
    """The SVG of a plot as an XML tree, once it is known to lie in its frame."""
    html = str(render._environment("html").get_template("macros.html").module.plots([plot]))
    [text] = re.findall(r"<svg .*?</svg>", html, flags=re.DOTALL)
    tree = ElementTree.fromstring(text)
    width, height = map(float, tree.attrib["viewBox"].split()[2:])
    for element in tree.iter():
        for name, limit in (("x", width), ("y", height)):
            for key in (name, f"c{name}", f"{name}1", f"{name}2"):
                assert 0 <= float(element.get(key, 0)) <= limit
    return tree


def centres(tree):
    return [float(each.attrib["cx"]) for each in tree.iter("circle")]


def test_values_of_a_row_lie_at_their_ticks():
    row = Row("a", [1.0, 0.0, 2.0], mean=1.0, span=(0.0, 2.0))
    tree = drawn(RowPlot("t", "x", [row]))
    ticks = {}
    for text in tree.iter("text"):
        if text.get("text-anchor") == "middle":
            ticks[text.text] = float(text.attrib["x"])
    assert centres(tree) == [ticks["1"], ticks["0"], ticks["2"]]
    span, mean = tree.find("g").findall("line")
    assert [float(span.attrib[key]) for key in ("x1", "x2")] == [ticks["0"], ticks["2"]]
    assert {float(mean.attrib[key]) for key in ("x1", "x2")} == {ticks["1"]}


@pytest.mark.parametrize("values", VALUES)
def test_any_values_can_be_drawn(values):
    drawn(RowPlot("t", "x", [Row("a", values, mean=values[0])], guide=0.0))
    drawn(Plot("t", [Series("a", list(enumerate(values)))]))


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_text_of_the_picture_and_of_its_title(name):
    short = short_label(name)
    assert len(short) < 60
    tree = drawn(RowPlot(name, short, [Row(short, [1.0])]))
    cells = [text.text for text in tree.iter("text")]
    assert cells.count(short) == 2
    assert short in tree.find("title").text
