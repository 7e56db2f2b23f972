"""`python -m mlxlab SUBCOMMAND ...` is `mlxlab SUBCOMMAND ...`."""

import sys

from mlxlab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
