"""The programs. Each needs the Python environment into which mlxlab was installed, and says so in any other one."""

import sys
from importlib.util import find_spec

missing = [name for name in ("hydra", "mlx", "numpy") if find_spec(name) is None]
if missing:
    print(
        f"{sys.executable} has no package {missing[0]}; expected the Python of the environment into which mlxlab was"
        " installed: activate it first (. .venv/bin/activate)",
        file=sys.stderr,
    )
    sys.exit(69)  # ServiceUnavailableError has this exit code.
