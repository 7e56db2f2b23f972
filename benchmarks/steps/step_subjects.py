"""Process of one subject of the step benchmark. Arguments: name, family, size, dropout, rows, length, vocabulary.

All subjects take the same steps: random tokens, cross-entropy over all of them, AdamW, float32 unless the name says
otherwise (on an NVIDIA GPU its products are in TF32, MLX's default, for all). For every line "n" of standard input it
runs n steps and prints a line of JSON.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

RATE = 1e-4
NATIVE = ("simple", "optimized", "optimized bfloat16")
MLXLAB = (*NATIVE, "MLX's kernels", "plain MLX")
PYTORCH = ("PyTorch", "PyTorch compiled", "PyTorch compiled bfloat16", "PyTorch one thread")


@dataclass(frozen=True)
class Shape:
    """Of the batch of all steps: rows, tokens of each, and how many different ones."""

    rows: int = 8
    length: int = 256
    vocabulary: int = 5000


def main(name: str, family: str, size: str, dropout: str, *sizes: str) -> None:
    shape = Shape(*map(int, sizes))
    if name in ("plain MLX", "mlx-lm"):
        os.environ["MLXLAB_CUSTOM_OPS"] = "0"  # the operators of MLX
    else:
        from mlxlab import backend

        backend.prepare()
    if name in NATIVE and not on_gpu():
        from mlxlab.backend.ops.native.activation import activate

        activate("require")
    if name in PYTORCH:
        from benchmarks.steps.torch_decoder import torch_module

        torch = torch_module()
        torch.set_num_threads(1 if name.endswith("one thread") else torch.get_num_threads())
        if on_gpu():
            torch.set_float32_matmul_precision("high")
    import mlx.core as mx

    mx.eval(mx.zeros(1))
    baseline: Any = resident()
    from benchmarks.subject import language_model

    model = language_model(family, size, shape.vocabulary, dropout=float(dropout))
    if name == "mlx-lm":
        mlx_lm_steps(size, shape, partial(turns, baseline))
        return
    if name in MLXLAB:
        step, loss = mlxlab_step(name, model, shape)
    else:
        step, loss = torch_step(name, model, family, shape)
    for _ in turns(baseline, loss(), device_peak(name)):
        step()


def on_gpu() -> bool:
    import mlx.core as mx

    return mx.default_device() == mx.Device(mx.gpu)


def device_peak(name: str) -> Callable[[], int] | None:
    """What returns the peak bytes of a subject on the GPU, after all its work; None on a CPU."""
    if not on_gpu():
        return None
    if name not in PYTORCH:
        import mlx.core as mx

        return mx.get_peak_memory
    import torch

    def torch_peak() -> int:
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()

    return torch_peak


def turns(
    baseline: int, loss: float | None = None, device_peak: Callable[[], int] | None = None
) -> Iterator[None]:
    """Yields once per requested step; prints seconds, CPU seconds and peak bytes: above `baseline`, or on the GPU."""
    answer({"loss": loss})
    for line in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            yield
        steps = max(int(line), 1)
        used_bytes = device_peak() if device_peak else peak() - baseline
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        answer({"seconds": seconds / steps, "cpu": cpu / steps, "bytes": used_bytes})


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


def tokens(shape: Shape) -> tuple[Any, Any]:
    """(rows, length) inputs and targets."""
    import numpy as np

    rng = np.random.default_rng(0)
    ids = rng.integers(0, shape.vocabulary, (shape.rows, shape.length + 1)).astype(np.int32)
    return ids[:, :-1], ids[:, 1:]


def mlxlab_step(
    name: str, model: Any, shape: Shape
) -> tuple[Callable[[], Any], Callable[[], float]]:
    """The step of trainer=simple or trainer=optimized, and a function that returns the loss."""
    import numpy as np

    from mlxlab.data.batch import Batch
    from mlxlab.training.device_batch import to_device
    from mlxlab.training.losses.loss import CrossEntropyLoss
    from mlxlab.training.optim.optimizers import adamw
    from mlxlab.training.steps.optimized import OptimizedStep
    from mlxlab.training.steps.step import PlainStep

    inputs, targets = tokens(shape)
    batch = Batch(
        inputs,
        np.ones_like(inputs, bool),
        targets,
        np.ones(inputs.shape, np.float32),
        np.arange(shape.rows),
    )
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
            "retry_on_oom": False,
        }
        kind = partial(OptimizedStep, accumulate=1, **options)
    take_step = kind(
        max_grad_norm=1.0, model=model, loss=CrossEntropyLoss(0.0), optimizer=optimizer
    )
    model.eval()

    def loss() -> float:
        value: Any = CrossEntropyLoss(0.0)(model, to_device(batch)).total.mean().item()
        model.train()
        return float(value)

    return lambda: take_step(to_device(batch)), loss


def torch_step(
    name: str, mlx_model: Any, family: str, shape: Shape
) -> tuple[Callable[[], Any], Callable[[], float]]:
    """As `mlxlab_step`, in PyTorch: fused AdamW; model and loss compiled together if the name says so."""
    from benchmarks.steps.torch_decoder import torch_decoder, torch_module
    from benchmarks.steps.torch_encoder import torch_encoder

    torch = torch_module()
    device = "cuda" if on_gpu() else "cpu"
    model = (torch_decoder if family == "transformer" else torch_encoder)(mlx_model).to(device)
    inputs, targets = (torch.from_numpy(x).long().to(device) for x in tokens(shape))
    decayed = [p for name, p in model.named_parameters() if p.ndim >= 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8, fused=True)
    narrow = name.endswith("bfloat16")

    def mean_loss(ids: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(
            model(ids).view(-1, shape.vocabulary), labels.view(-1)
        )

    forward = torch.compile(mean_loss) if "compiled" in name else mean_loss

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            loss = forward(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def loss() -> float:
        model.eval()
        with torch.no_grad():
            value = mean_loss(inputs, targets).item()
        model.train()
        return float(value)

    return step, loss


def mlx_lm_steps(size: str, shape: Shape, turns: Callable[[], Iterator[None]]) -> None:
    """mlx-lm's trainer with its Llama of the same shape; its loop fetches a batch before every step."""
    import tempfile

    import mlx.core as mx
    import mlx.optimizers as optim
    import numpy as np
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.tuner.trainer import TrainingArgs, train

    from benchmarks.config import read_config

    sizes = read_config(f"model/size/{size}")
    model = Model(
        ModelArgs(
            model_type="llama",
            hidden_size=sizes["hidden_size"],
            num_hidden_layers=sizes["num_layers"],
            intermediate_size=sizes["intermediate_size"],
            num_attention_heads=sizes["num_heads"],
            rms_norm_eps=1e-5,
            vocab_size=shape.vocabulary,
            tie_word_embeddings=True,
        )
    )
    mx.eval(model.parameters())
    inputs, targets = tokens(shape)
    rows = mx.array(np.concatenate([inputs, targets[:, -1:]], axis=1))
    lengths = mx.array([[0, shape.length]] * shape.rows)

    def batches(**ignored: Any) -> Iterator[tuple[mx.array, mx.array]]:
        for _ in turns():
            yield rows, lengths

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # it prints reports
        never: Any = dict.fromkeys(
            ("iters", "steps_per_report", "steps_per_save", "steps_per_eval"), 10**9
        )
        args = TrainingArgs(
            batch_size=shape.rows, adapter_file=f"{folder}/adapters.safetensors", **never
        )
        train(model, optim.AdamW(RATE), [0] * shape.rows, args=args, iterate_batches=batches)


if __name__ == "__main__":
    main(*sys.argv[1:])
