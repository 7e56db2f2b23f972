"""Process of one subject of the step benchmark. Arguments: name, family, size, dropout.

All subjects take the same steps: 8 x 256 random tokens of a vocabulary of 5,000, cross-entropy over all tokens, AdamW,
float32. For every line "n" of standard input it runs n steps and prints a line of JSON.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

ROWS, LENGTH, VOCABULARY, RATE = 8, 256, 5000, 1e-4
MLXLAB = ("simple", "optimized", "native", "native bfloat16", "plain MLX")
SUBJECTS = (*MLXLAB, "mlx-lm", "PyTorch", "PyTorch compiled")


def main(name: str, family: str, size: str, dropout: str) -> None:
    if name in ("plain MLX", "mlx-lm"):
        os.environ["MLXLAB_CUSTOM_OPS"] = "0"  # the operators of MLX
    else:
        from mlxlab import backend

        backend.prepare()
    if name.startswith("native"):
        from mlxlab.ops.native.activation import activate

        activate("require")
    if name.startswith("PyTorch"):
        from benchmarks.torch_decoder import torch_module

        torch_module()
    import mlx.core as mx

    mx.eval(mx.zeros(1))
    baseline: Any = resident()
    from benchmarks.subject import language_model

    model = language_model(family, size, VOCABULARY, dropout=float(dropout))
    if name == "mlx-lm":
        mlx_lm_steps(size, partial(turns, baseline))
        return
    if name in MLXLAB:
        step, loss = mlxlab_step(name, model)
    else:
        step, loss = torch_step(model, family, compiled=name.endswith("compiled"))
    for _ in turns(baseline, loss()):
        step()


def turns(baseline: int, loss: float | None = None) -> Iterator[None]:
    """Yields once per requested step; prints seconds and CPU seconds per step, and peak bytes above `baseline`."""
    answer({"loss": loss})
    for line in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            yield
        steps = max(int(line), 1)
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        answer({"seconds": seconds / steps, "cpu": cpu / steps, "bytes": peak() - baseline})


def answer(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True, file=sys.__stdout__)


def resident() -> int:
    """Resident bytes; the peak where /proc is missing."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak()


def peak() -> int:
    """Peak resident bytes of the process."""
    maxrss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maxrss if sys.platform == "darwin" else maxrss * 1024


def tokens() -> tuple[Any, Any]:
    """(8, 256) inputs and targets."""
    import numpy as np

    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (ROWS, LENGTH + 1)).astype(np.int32)
    return ids[:, :-1], ids[:, 1:]


def mlxlab_step(name: str, model: Any) -> tuple[Callable[[], Any], Callable[[], float]]:
    """The step of trainer=simple or trainer=optimized, and a function that returns the initial loss."""
    import numpy as np

    from mlxlab.data.batch import Batch
    from mlxlab.training.device_batch import to_device
    from mlxlab.training.losses.loss import CrossEntropyLoss
    from mlxlab.training.optim.optimizers import adamw
    from mlxlab.training.steps.optimized import OptimizedStep
    from mlxlab.training.steps.step import PlainStep

    inputs, targets = tokens()
    batch = Batch(inputs, np.ones_like(inputs, bool), targets, np.ones(inputs.shape, np.float32), np.arange(ROWS))
    optimizer = adamw(0.01, [0.9, 0.999], 1e-8, learning_rate=RATE)
    optimizer.init(model.trainable_parameters())
    kind: Any = PlainStep
    if name not in ("simple", "plain MLX"):
        narrow = name.endswith("bfloat16")
        options: Any = {
            "activation_checkpointing": False,
            "head_chunk": "auto",
            "dtype": "bfloat16" if narrow else "float32",
            "allow_slow_dtype": narrow,
            "compile": "always",
            "cpu_streams": "auto",
            "retry_on_oom": False,
        }
        kind = partial(OptimizedStep, accumulate=1, **options)
    take_step = kind(max_grad_norm=1.0, model=model, loss=CrossEntropyLoss(0.0), optimizer=optimizer)
    model.eval()

    def loss() -> float:
        value: Any = CrossEntropyLoss(0.0)(model, to_device(batch)).total.mean().item()
        model.train()
        return float(value)

    return lambda: take_step(to_device(batch)), loss


def torch_step(mlx_model: Any, family: str, *, compiled: bool) -> tuple[Callable[[], Any], Callable[[], float]]:
    """As `mlxlab_step`, in PyTorch."""
    from benchmarks.torch_decoder import torch_decoder, torch_module
    from benchmarks.torch_encoder import torch_encoder

    torch = torch_module()
    model = (torch_decoder if family == "transformer" else torch_encoder)(mlx_model)
    inputs, targets = (torch.from_numpy(x).long() for x in tokens())
    decayed = [p for name, p in model.named_parameters() if p.ndim >= 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    forward = torch.compile(model) if compiled else model
    cross_entropy = torch.nn.functional.cross_entropy

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(forward(inputs).view(-1, VOCABULARY), targets.view(-1)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def loss() -> float:
        model.eval()
        with torch.no_grad():
            value = cross_entropy(model(inputs).view(-1, VOCABULARY), targets.view(-1)).item()
        model.train()
        return float(value)

    return step, loss


def mlx_lm_steps(size: str, turns: Callable[[], Iterator[None]]) -> None:
    """mlx-lm's trainer with its Llama of the same shape; its loop fetches a batch before every step."""
    import tempfile

    import mlx.core as mx
    import mlx.optimizers as optim
    import numpy as np
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.tuner.trainer import TrainingArgs, train

    from benchmarks.config import read_config

    shape = read_config(f"model/size/{size}")
    model = Model(
        ModelArgs(
            model_type="llama",
            hidden_size=shape["hidden_size"],
            num_hidden_layers=shape["num_layers"],
            intermediate_size=shape["intermediate_size"],
            num_attention_heads=shape["num_heads"],
            rms_norm_eps=1e-5,
            vocab_size=VOCABULARY,
            tie_word_embeddings=True,
        )
    )
    mx.eval(model.parameters())
    inputs, targets = tokens()
    rows = mx.array(np.concatenate([inputs, targets[:, -1:]], axis=1))
    lengths = mx.array([[0, LENGTH]] * ROWS)

    def batches(**ignored: Any) -> Iterator[tuple[mx.array, mx.array]]:
        for _ in turns():
            yield rows, lengths

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # it prints reports
        never: Any = dict.fromkeys(("iters", "steps_per_report", "steps_per_save", "steps_per_eval"), 10**9)
        args = TrainingArgs(batch_size=ROWS, adapter_file=f"{folder}/adapters.safetensors", **never)
        train(model, optim.AdamW(RATE), [0] * ROWS, args=args, iterate_batches=batches)


if __name__ == "__main__":
    main(*sys.argv[1:])
