"""The preview of a schedule: architecture and parameters after each operation."""

import pytest

from mlxlab.data.batch import Task
from mlxlab.errors import ConfigError
from mlxlab.growth.preview import preview
from mlxlab.models.build import Architecture
from mlxlab.models.model import count_parameters
from support.growth import SIZES, TARGETS, new_model

START = Architecture({"_target_": TARGETS["transformer"], **SIZES}, 23)
TASK = Task("language_modelling", 23)
STEPS = {"when": {"or_steps": 5}}
DEEPER = {"id": "deeper", "op": "stack", "map": [0, 0, 1, 1], "when": {"metric_below": 4}, "then": "evaluate"}
NARROWER = {"id": "narrower", "op": "widen", "feed_forward": 4, **STEPS}


def test_each_operation_has_a_row():
    rate = {"id": "rate", "op": "set_learning_rate", "learning_rate": 0.1, **STEPS}
    text = preview(START, TASK, [DEEPER, rate, {**NARROWER, "feed_forward": 20}], "raise")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    final = Architecture(START.node | {"num_layers": 4, "intermediate_size": 20}, 23)
    kind = {"kind": "language_modelling", "num_classes": 23}
    assert [row[1] for row in rows] == ["", "deeper", "rate", "narrower"]
    assert rows[1][3:5] == ["objective < 4, then evaluate", "num_layers=4"]
    assert rows[2][4:] == ["unchanged", rows[1][5]]
    assert rows[3][5] == f"{count_parameters(new_model(final, kind)):,}"


def test_an_operation_that_does_not_fit_is_an_error_or_skipped():
    with pytest.raises(ConfigError, match=r"narrower: feed_forward: expected more than 12, got 4"):
        preview(START, TASK, [NARROWER], "raise")
    assert "skipped: feed_forward" in preview(START, TASK, [NARROWER], "skip")
