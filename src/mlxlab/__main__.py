"""`python -m mlxlab SUBCOMMAND ...` is `mlxlab SUBCOMMAND ...`."""

import sys

try:
    from mlxlab.cli.main import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
