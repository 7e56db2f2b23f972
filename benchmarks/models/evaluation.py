"""Seconds of an evaluation of a language model: mlxlab and PyTorch, with the same weights."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.alternate import table
from benchmarks.steps.peer_process import measure, peers, rows
from benchmarks.subject import language_model
from mlxlab.schema.constraints import Size

BATCHES, ROWS, LENGTH, VOCABULARY = 4, 8, 256, 5000


def evaluation(
    size: str = "nano,tiny",
    model: str = "transformer,bert",
    compare_with: str = "",
    rounds: Size = 5,
) -> str:
    """Loss of 4 batches of 8 x 256 random tokens, all of them targets, without gradients."""
    names = peers(compare_with, ["PyTorch"])
    lines: list[tuple[str, ...]] = [
        ("model", "subject", "seconds", "tokens/s", "CPU s", "mlxlab / it", "peak MB")
    ]
    for family in model.split(","):
        for option in size.split(","):
            measurements = measure("models.evaluation", names, (family, option), rounds)
            lines += rows(f"{family} {option}", measurements, BATCHES * ROWS * LENGTH)
    title = f"evaluation of {BATCHES} x {ROWS} x {LENGTH} tokens, {VOCABULARY} classes, float32"
    return table(f"{title}; medians of {rounds} bursts", lines)


def subject(name: str, family: str, size: str) -> Callable[[], float]:
    """The evaluation of one of the peers: a function that returns the mean loss."""
    model = language_model(family, size, VOCABULARY, dropout=0.0)
    tokens = (
        np.random.default_rng(0)
        .integers(0, VOCABULARY, (BATCHES, ROWS, LENGTH + 1))
        .astype(np.int32)
    )
    return (torch_evaluation if name == "PyTorch" else mlxlab_evaluation)(model, family, tokens)


def mlxlab_evaluation(model: Any, family: str, tokens: np.ndarray) -> Callable[[], float]:
    from mlxlab.data.batch import Batch, Task
    from mlxlab.training.evaluate import evaluate

    ones = np.ones((ROWS, LENGTH), np.float32)
    batches = [Batch(x[:, :-1], ones > 0, x[:, 1:], ones, np.arange(ROWS)) for x in tokens]
    task = Task("language_modelling", VOCABULARY)

    def loss() -> float:
        result = evaluate(model, batches, task)
        assert result is not None
        return result.metrics["loss"]

    return loss


def torch_evaluation(model: Any, family: str, tokens: np.ndarray) -> Callable[[], float]:
    from benchmarks.steps.torch_decoder import torch_decoder, torch_module
    from benchmarks.steps.torch_encoder import torch_encoder

    torch = torch_module()
    network = (torch_decoder if family == "transformer" else torch_encoder)(model).eval()
    cross_entropy = torch.nn.functional.cross_entropy
    batches = [
        (torch.from_numpy(x[:, :-1]).long(), torch.from_numpy(x[:, 1:]).long()) for x in tokens
    ]

    def loss() -> float:
        with torch.inference_mode():
            losses = [
                cross_entropy(network(x).view(-1, VOCABULARY), y.reshape(-1)).item()
                for x, y in batches
            ]
        return float(np.mean(losses))

    return loss
