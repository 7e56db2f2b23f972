"""What native kernels cost: seconds to build them while a run trains, to find and load them; bytes of the wheel."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from benchmarks.alternate import table
from benchmarks.new_process import ROOT, run_module
from mlxlab.errors import ServiceUnavailableError

BUILD_SECONDS = 300.0
SETTINGS = (  # a run that goes on until it is stopped
    *(
        "model/size=nano",
        "trainer.max_steps=1000000",
        "trainer.epochs=null",
        "trainer.eval_every=1000000",
    ),
    *("tracking=none", "checkpointing.every_steps=1000000"),
)


def native_build(rounds: int = 5) -> str:
    """One build in an empty cache; `rounds` processes that load the library; the wheel of this commit."""
    with tempfile.TemporaryDirectory() as folder:
        built = background_build(Path(folder))
        cache = {"XDG_CACHE_HOME": folder}
        loads = [
            run_module("processes.native_load_subject", [], folder, cache) for _ in range(rounds)
        ]
    wheel, share = wheel_bytes()
    seconds = statistics.median(load["seconds"] for load in loads)
    rows: list[tuple[str, ...]] = [
        ("quantity", "value"),
        ("seconds from the start of a run to the library, while it trains", f"{built:.1f}"),
        ("seconds to find, check and load it", f"{seconds:.3f}"),
        ("kB of the wheel", f"{wheel / 1e3:.0f}"),
        ("kB of the wheel that are kernels", f"{share / 1e3:.0f}"),
    ]
    return table(
        f"native kernels, built in the background of a Titanic run; medians of {rounds} loads", rows
    )


def background_build(folder: Path) -> float:
    """Seconds from the start of a training run to the record of its build in an empty cache."""
    command = [sys.executable, f"{ROOT}/scripts/train.py", *SETTINGS, f"hydra.run.dir={folder}/run"]
    start, log = time.monotonic(), folder / "output"
    with log.open("w") as out:
        run = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            env=os.environ | {"XDG_CACHE_HOME": str(folder), "MLXLAB_NATIVE": "auto"},
        )
    try:
        while not list(folder.glob("mlxlab/native/*.json")):
            if run.poll() is not None or time.monotonic() > start + BUILD_SECONDS:
                raise ServiceUnavailableError(f"no library was built\n{log.read_text()[-1000:]}")
            time.sleep(0.05)
        return time.monotonic() - start
    finally:
        run.kill()
        run.wait()


def wheel_bytes() -> tuple[int, int]:
    """The size of the wheel of this commit, and what of it is `ops/native`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            raise ServiceUnavailableError(f"no wheel was built\n{done.stderr[-1000:]}")
        with zipfile.ZipFile(wheels[0]) as archive:
            native = [
                file.compress_size
                for file in archive.infolist()
                if "mlxlab/backend/ops/native/" in file.filename
            ]
        return wheels[0].stat().st_size, sum(native)
