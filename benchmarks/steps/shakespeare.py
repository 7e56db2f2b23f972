"""experiment=shakespeare_char compared with the same model in plain PyTorch: same initial weights, same batches."""

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.alternate import table
from benchmarks.steps.torch_decoder import torch_decoder, torch_module
from mlxlab.backend.ops.native.activation import activate
from mlxlab.config.hydra.compose import compose_checked
from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError
from mlxlab.evaluation.parts.data import build_data
from mlxlab.evaluation.parts.model import build_model
from mlxlab.models.model import count_parameters
from mlxlab.training.device_batch import to_device
from mlxlab.training.evaluate import evaluate

TRAINERS = ("simple", "optimized")


def shakespeare(source: str | None = None, compare_with: str = "torch", rounds: int = 2000) -> str:
    """`rounds` steps of each; the variants take turns batch by batch, so that noise affects all equally."""
    if source is None or compare_with != "torch":
        raise ConfigError(
            "suite=shakespeare: expected source=<tinyshakespeare.txt> compare_with=torch"
        )
    torch_module()
    activate("require")
    with tempfile.TemporaryDirectory() as folder:
        cfg = _composed(source, rounds, "simple")
        data = build_data(cfg, Path(folder), None, Path(folder))
        models = {f"mlxlab, trainer={name}": build_model(cfg, data) for name in TRAINERS}
        torch_model = torch_decoder(next(iter(models.values())))
        steps: dict[str, Callable[[Batch], Any]] = {
            title: _mlxlab_step(_composed(source, rounds, name), model, data)
            for name, (title, model) in zip(TRAINERS, models.items(), strict=True)
        }
        steps["PyTorch, eager"] = _torch_step(torch_model, cfg, rounds)
        seconds = _train(steps, data, rounds)
        losses = {title: _loss(model, data) for title, model in models.items()}
        losses["PyTorch, eager"] = _torch_loss(torch_model, data)
    return _table(seconds, losses, cfg, count_parameters(next(iter(models.values()))), rounds)


def _composed(source: str, rounds: int, trainer: str) -> Any:
    overrides = [
        "experiment=shakespeare_char",
        f"data.source={Path(source).absolute()}",
        f"trainer.max_steps={rounds}",
    ]
    overrides += [
        f"trainer={trainer}",
        f"trainer.schedule.warmup={min(100, rounds // 10)}",
        "tracking=none",
    ]
    return compose_checked(overrides)


def _mlxlab_step(cfg: Any, model: Any, data: Any) -> Callable[[Batch], Any]:
    """The step of the trainer, without logging."""
    trainer = instantiate(cfg["trainer"], task=data.task, class_counts=[])
    state = trainer.init_state(model, data.train)
    schedule = trainer.lr_schedule(state)
    step = trainer.make_step(state)
    model.train()

    def take_step(batch: Batch) -> None:
        state.optimizer.learning_rate = schedule(mx.array(state.progress.schedule_step))
        state.advance(batch)
        state.record(step(to_device(batch)))

    return take_step


def _torch_step(model: Any, cfg: Any, rounds: int) -> Callable[[Batch], Any]:
    """The same step in idiomatic PyTorch."""
    torch = torch_module()
    named = dict(model.named_parameters())
    decayed = [leaf for name, leaf in named.items() if leaf.ndim >= 2 and "embed" not in name]
    others = [leaf for name, leaf in named.items() if leaf.ndim < 2 or "embed" in name]
    settings = cfg["trainer"]["optimizer"]
    groups = [
        {"params": decayed, "weight_decay": settings["weight_decay"]},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, betas=tuple(settings["betas"]), eps=settings["eps"], fused=True
    )
    rate = instantiate(cfg["trainer"]["schedule"])(
        peak=cfg["trainer"]["learning_rate"], steps=rounds
    )
    rates = iter(np.array(rate(mx.arange(rounds))).tolist())

    def take_step(batch: Batch) -> None:
        learning_rate = next(rates)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        logits = model(torch.from_numpy(batch.tokens))
        targets = torch.from_numpy(batch.targets).long()
        values = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none"
        )
        weights = torch.from_numpy(batch.loss_weights).flatten()
        loss = (values * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg["trainer"]["step"]["max_grad_norm"])
        optimizer.step()

    return take_step


def _train(
    steps: dict[str, Callable[[Batch], Any]], data: Any, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of every step."""
    seconds: dict[str, list[tuple[float, float]]] = {title: [] for title in steps}
    endless = chain.from_iterable(data.train for _ in count())
    for batch in islice(endless, rounds):
        for title, step in steps.items():
            start = time.perf_counter(), time.process_time()
            step(batch)
            seconds[title].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return seconds


def _loss(model: Any, data: Any) -> float:
    evaluation = evaluate(model, data.valid, data.task)
    assert evaluation is not None
    return evaluation.metrics["loss"]


def _torch_loss(model: Any, data: Any) -> float:
    torch = torch_module()
    total = weight = 0.0
    with torch.no_grad():
        for batch in data.valid:
            logits = model(torch.from_numpy(batch.tokens)).flatten(0, 1)
            targets = torch.from_numpy(batch.targets).long().flatten()
            values = (
                torch.nn.functional.cross_entropy(logits, targets, reduction="none")
                .double()
                .numpy()
            )
            total += float((values * batch.loss_weights.flatten()).sum())
            weight += float(batch.loss_weights.sum())
    return total / weight


def _table(
    seconds: dict[str, list[tuple[float, float]]],
    losses: dict[str, float],
    cfg: Any,
    parameters: int,
    rounds: int,
) -> str:
    base = [statistics.median(column) for column in zip(*seconds["PyTorch, eager"], strict=True)]
    head = ("variant", "total s", "ms/step", "CPU ms/step", "speed", "CPU speed", "validation loss")
    rows: list[tuple[str, ...]] = [head]
    for title, timings in seconds.items():
        wall, cpu = (statistics.median(column) for column in zip(*timings, strict=True))
        figures = [
            f"{sum(wall for wall, _ in timings):.0f}",
            f"{1000 * wall:.1f}",
            f"{1000 * cpu:.1f}",
        ]
        figures += [f"{base[0] / wall:.2f}", f"{base[1] / cpu:.2f}", f"{losses[title]:.4f}"]
        rows.append((title, *figures))
    shape = (
        f"{parameters:,} parameters, batch {cfg['data']['batch_size']} x {cfg['data']['seq_len']}"
    )
    return table(
        f"tinyshakespeare, character level, {rounds} steps of {shape}, on {mx.default_device()}",
        rows,
    )
