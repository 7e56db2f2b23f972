"""Operations on random small models in training: outputs stay what they were, statistics of the optimizer follow."""

import re
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.grow import CHANGES
from mlxlab.models.layers import named_parameters
from support.growth import (
    FAMILIES,
    OPTIMIZERS,
    STARTS,
    Case,
    draw_node,
    draw_operation,
    new_case,
    new_model,
)
from support.growth_rules import expected_transfer, refusal, source_of

NAMES = (*(name for name in CHANGES if "lora" not in name and "freeze" not in name), "shrink")
NAMES = (*NAMES, "set_lora", "merge_lora", "freeze", "unfreeze")
# Group and parameter, in the optimizer state.
LEAF = re.compile(r"((?:optimizer\.)?states\.\d+)\.(.+)\.\w+")


def check(case: Case, operation: dict[str, Any], seed: int) -> Case:
    """The case after an operation, which preserves the outputs and transfers the statistics, or is refused."""
    before, names = case.training.architecture, case.trained()
    if (message := refusal(operation, before, case.training.weights)) is not None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            case.grow(operation, seed)
        return case
    grown, counts = case.grow(operation, seed)
    # What is frozen by an operation becomes its average, which was evaluated: the trained weights change.
    merges_frozen = operation["op"] == "merge_lora" and before.node.get("freeze")
    freezes = operation["op"] in ("freeze", "set_lora") or merges_frozen
    for evaluated in (True, False) if case.average and not freezes else (True,):
        old, new = (each.outputs(evaluated=evaluated) for each in (case, grown))
        np.testing.assert_allclose(
            new, old[..., : new.shape[-1]], atol=1e-4, err_msg=f"{before} {operation}"
        )
    expected = expected_transfer(operation, before.node, names, grown.trained())
    assert counts == expected.counts, f"{before} {operation}"
    assert with_statistics(grown) == expected.carried, f"{before} {operation}"
    steps, new_steps = counted_steps(case), counted_steps(grown)
    sources = {path: source_of(path, operation, before.node) for path in expected.carried}
    for group, count in new_steps.values():
        members = [path for path in new_steps if new_steps[path][0] == group]
        assert count in ({steps[sources[path]][1] for path in members if path in sources} or {0})
    return grown


def counted_steps(case: Case) -> dict[str, tuple[str, int]]:
    """Of each parameter that is trained: its group in the optimizer, and the steps that it counts."""
    state = case.training.optimizer
    groups = {match[2]: match[1] for path in state if (match := LEAF.fullmatch(path))}
    return {path: (group, int(state[f"{group}.step"])) for path, group in groups.items()}


def with_statistics(case: Case) -> set[str]:
    """The parameters whose statistics are not all zero."""
    used: dict[str, mx.array] = {}
    for path, array in case.training.optimizer.items():
        if match := LEAF.fullmatch(path):
            used[match[2]] = used.get(match[2], mx.array(False)) | (array != 0).any()
    mx.eval(used)
    return {path for path, is_used in used.items() if is_used.item()}


def start(
    rng: np.random.Generator, families: Sequence[str], starts: Sequence[str], seed: int
) -> Case:
    """A random model of one of the families, to which one of `starts` was done before."""
    node = draw_node(rng, str(rng.choice(families))) | STARTS[str(rng.choice(starts))]
    optimizer = str(rng.choice(list(OPTIMIZERS)))
    kind = str(rng.choice(["language_modelling", "classification"]))
    return new_case(node, kind, optimizer, average=bool(rng.random() < 0.5), seed=seed)


def check_drawn(rng: np.random.Generator, case: Case, name: str, seed: int) -> Case:
    return check(case, draw_operation(rng, case.training.architecture, name), seed)


@pytest.mark.parametrize("first", NAMES)
def test_an_operation_and_a_second_one_preserve_the_outputs(first):
    seed = sum(map(ord, first))
    rng = np.random.default_rng(seed)
    starts = {"merge_lora": ["lora"], "unfreeze": ["frozen"]}.get(first, ["plain"])
    families = ["rms"] if first == "grow_width" else FAMILIES
    case = check_drawn(rng, start(rng, families, starts, seed), first, seed).train(rng)
    for second in rng.choice(NAMES, 4, replace=False):
        check_drawn(rng, case, second, seed)


@pytest.mark.fault_injection
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("first", NAMES)
def test_all_pairs_of_operations_and_a_third_one_preserve_the_outputs(first, seed):
    rng = np.random.default_rng([seed, sum(map(ord, first))])
    families = ["rms", "rms", *FAMILIES] if first == "grow_width" else FAMILIES
    case = check_drawn(rng, start(rng, families, list(STARTS), seed), first, seed).train(rng)
    for second, third in zip(NAMES, rng.choice(NAMES, len(NAMES)), strict=True):
        check_drawn(rng, check_drawn(rng, case, second, seed).train(rng), third, seed)


@pytest.mark.parametrize("name", ["stack", "widen", "add_heads", "grow_width", "resize_vocabulary"])
def test_all_that_is_new_is_trained_after_two_steps(name):
    rng = np.random.default_rng(3)
    node = draw_node(rng, "rms") | {"num_layers": 2}
    case = new_case(node, "language_modelling")
    case, _ = case.grow(draw_operation(rng, case.training.architecture, name))
    model = new_model(case.training.architecture, case.task)
    model.load_weights(list(case.training.weights.items()))
    inputs = mx.array(case.view.tokens), mx.array(case.view.segment_ids)
    weights = mx.array(rng.normal(size=model(*inputs).shape).astype(np.float32))
    moved = dict.fromkeys(named_parameters(model), False)
    optimizer = optim.SGD(0.1)
    for _ in range(2):
        gradient = nn.value_and_grad(model, lambda model: (model(*inputs) * weights).sum())
        _, gradients = gradient(model)
        for path, leaf in tree_flatten(gradients):
            moved[path] = moved[path] or bool(mx.abs(leaf).max().item() > 0)
        optimizer.update(model, gradients)
    assert [path for path, has_moved in moved.items() if not has_moved] == []
