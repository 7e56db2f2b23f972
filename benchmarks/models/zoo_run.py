"""One architecture of mlx-lm in processes of its own: trained, killed and resumed, exported and reloaded.

Importing it imports what runs need and evaluates no array, so that a process forked from it starts at once.
"""

import io
import json
import os
import resource
import signal
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

os.environ |= {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}  # no fork keeps threads

import mlx.core as mx
import mlx_lm.utils
import numpy as np

from mlxlab.cli.train import main as train
from mlxlab.config.hydra.compose import compose
from mlxlab.inference.export import origin_of, restore_single, trained_model
from mlxlab.models.build import build_model
from mlxlab.models.interop.hugging_face import export_hugging_face
from mlxlab.models.layers import named_parameters
from mlxlab.run.train import build_callbacks  # noqa: F401  imports what a run needs
from mlxlab.training.state import TrainState

STEPS, KILLED_AT = 20, 11
TARGET = "mlxlab.models.zoo.mlx_lm.MlxLm"
LENGTH = 32  # tokens of a row
SETTINGS = [
    *(
        "model=mlx_lm",
        "model/size=none",
        "data=streaming",
        "data/tokenizer=characters",
        "tracking=none",
        "resume=auto",
    ),
    *(f"trainer.max_steps={STEPS}", "trainer.eval_every=10", "checkpointing.every_steps=5"),
    *(
        "checkpointing.background=false",
        "data.reading.document_unit=line",
        f"data.seq_len={LENGTH}",
        "data.batch_size=4",
        "data.prefetch=0",
    ),
    *("trainer.learning_rate=1e-3", "~callbacks.memory_monitor"),
]


compose([*SETTINGS, "data.source=text.txt"])


def perform(
    action: str, folder: str, config: dict[str, Any], source: str, limit_bytes: int
) -> None:
    """Performs an action in this process; writes the result of each part to `<folder>/<part>.json`."""
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    actions: dict[str, list[tuple[str, Callable[[Path, dict[str, Any], str], dict[str, Any]]]]] = {
        "whole": [
            ("forward", forward),
            ("whole", lambda *args: trained("whole", *args)),
            ("export", export),
        ],
        "killed": [("killed", lambda *args: trained("resumed", *args, kill=True))],
        "resumed": [("resumed", lambda *args: trained("resumed", *args))],
    }
    for name, function in actions[action]:
        result: dict[str, Any]
        try:
            result = function(Path(folder), config, source)
        except (
            BaseException
        ) as error:  # whatever code of an architecture raises is a row of the table
            result = {"error": reason(error)}
        Path(folder, f"{name}.json").write_text(json.dumps(result))
        if "error" in result:
            break


def forward(folder: Path, config: dict[str, Any], source: str) -> dict[str, Any]:
    """Finite logits of two rows, and the number of parameters."""
    del folder, source
    model = build_model(
        {"_target_": TARGET, "config": config}, kind="language_modelling", vocab_size=300, seed=0
    )
    logits = model.eval()(mx.zeros((2, LENGTH), mx.int32), mx.ones((2, LENGTH), mx.bool_))
    if logits.shape != (2, LENGTH, 300) or not mx.isfinite(logits).all().item():
        raise ValueError(
            f"logits of shape {logits.shape} that are not all finite, or of another shape"
        )
    return {"parameters": sum(leaf.size for leaf in named_parameters(model).values())}


def trained(
    name: str, folder: Path, config: dict[str, Any], source: str, *, kill: bool = False
) -> dict[str, Any]:
    """The final state of a run in `<folder>/<name>`; killed at a step if `kill`."""
    if kill:
        record = TrainState.record

        def record_and_die(self: TrainState, result: Any) -> None:
            record(self, result)
            if self.progress.step == KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)

        TrainState.record = record_and_die  # type: ignore[method-assign]
    conf = folder / "conf" / "model"
    conf.mkdir(parents=True, exist_ok=True)
    node = {
        "_target_": TARGET,
        "config": config,
        "dropout": 0.0,
        "pretrained": None,
        "init_from": None,
        "freeze": [],
    }
    (conf / "subject.yaml").write_text(json.dumps(node))  # JSON is YAML
    overrides = [
        "model=subject",
        *SETTINGS[1:],
        f"data.source={source}",
        f"hydra.run.dir={folder / name}",
    ]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = train(["--config-dir", str(folder / "conf"), *overrides])
    lines = [line for line in out.getvalue().splitlines() if line.startswith("final_state=")]
    if code or not lines:
        raise RuntimeError(
            err.getvalue().strip().splitlines()[-1]
            if err.getvalue().strip()
            else f"exit code {code}"
        )
    return {"final_state": lines[0], "resumed": "resumed from step-" in err.getvalue()}


def export(folder: Path, config: dict[str, Any], source: str) -> dict[str, Any]:
    """The largest difference of logits between the trained model and its export, loaded by mlx-lm."""
    del config, source
    restored = restore_single(folder / "whole", "last")
    trained, out = trained_model(restored), folder / "exported"
    export_hugging_face(trained, out, origin_of(restored, folder / "whole", None))
    theirs, _ = mlx_lm.utils.load_model(out)
    ids = np.random.default_rng(0).integers(0, trained.vocab_size, (2, LENGTH)).astype(np.int32)
    tokens = mx.array(ids)
    expected = restored.model(tokens, mx.ones(tokens.shape, mx.bool_))
    return {"difference": mx.abs(expected - theirs(tokens)).max().item()}


def reason(error: BaseException) -> str:
    """The first line of an error, short."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"{type(error).__name__}: {text}"[:160]
