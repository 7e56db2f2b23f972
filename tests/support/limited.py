"""A script: a command of mlxlab whose address space is limited to 4 GB. It writes its largest resident memory."""

import resource
import sys
from pathlib import Path

from mlxlab.backend.memory import peak_memory
from mlxlab.cli.main import main

LIMIT = 4 * 10**9

if __name__ == "__main__":  # `info` starts a process that imports this script.
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    code = main(sys.argv[1:])
    Path("peak").write_text(str(peak_memory()))
    sys.exit(code)
