"""`python -m mlxlab.ops.native.check_library FILE`: the self-check of a built library, in a process that may crash."""

import json
import sys
from pathlib import Path


def main() -> None:
    """Prints a JSON object: `error`, or null, and `features`."""
    from mlxlab import backend

    backend.prepare()
    from mlxlab.ops.native import self_check
    from mlxlab.ops.native.library import load
    from mlxlab.ops.native.toolchain import KernelsUnavailable

    path, features = Path(sys.argv[1]), ""
    try:
        features = load(path, path)
        error = self_check.check()
    except KernelsUnavailable as reason:
        error = str(reason)
    print(json.dumps({"error": error, "features": features}))


if __name__ == "__main__":
    main()
