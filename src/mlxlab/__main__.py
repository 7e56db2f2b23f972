"""`python -m mlxlab VERB ...` is `mlxlab VERB ...`."""

import sys

from mlxlab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
