"""The guide for users of older programs: every command that it names composes."""

import re
import shlex

import pytest

from support.processes import ROOT
from support.sweep_jobs import checked_config

GUIDE = (ROOT / "docs" / "how_to" / "migration.md").read_text(encoding="utf-8")
DOCUMENTED = re.findall(
    r"^\| `(?:python|torchrun|\./).*?` \| `mlxlab ((?:train|launch) .*?)` \|$", GUIDE, re.M
)
RECIPES = re.findall(r"`(experiment=[^`]*)`", GUIDE)


@pytest.mark.parametrize("arguments", DOCUMENTED)
def test_a_command_of_the_guide_composes(arguments):
    words = shlex.split(arguments)[1:]
    assert checked_config([word for word in words if not word.startswith("nproc=")])


def test_every_recipe_of_the_guide_composes():
    assert len(RECIPES) > 8
    for recipe in RECIPES:
        assert checked_config(shlex.split(recipe))
