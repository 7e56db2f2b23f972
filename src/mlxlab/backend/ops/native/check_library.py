"""`python -m mlxlab.backend.ops.native.check_library FILE`: the self-check of a built library, in a process that may crash."""

import sys
from pathlib import Path


def main() -> None:
    """Exits with the reason if the library may not be used."""
    from mlxlab import backend

    backend.prepare()
    from mlxlab.backend.ops.native import self_check
    from mlxlab.backend.ops.native.library import load
    from mlxlab.backend.ops.native.toolchain import KernelsUnavailable

    path = Path(sys.argv[1])
    try:
        load(path)
    except KernelsUnavailable as reason:
        sys.exit(str(reason))
    error = self_check.check()
    if error is not None:
        sys.exit(error)


if __name__ == "__main__":
    main()
