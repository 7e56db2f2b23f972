"""The suite on labelled texts, with a few hundred of them."""

import pytest
from benchmarks.__main__ import main


@pytest.mark.slow
def test_the_table_compares_an_empty_cache_with_a_warm_one(capsys):
    assert main(["suite=labelled", "rows=500"]) == 0
    out = capsys.readouterr().out
    assert "500 texts" in out
    assert "| empty " in out
    assert "| warm " in out
