"""Builds the documentation site and checks it: links and anchors lead somewhere, nothing is loaded from elsewhere.

    python -m documentation [out=build/site]

OUT/index.html can be opened without a server or a network. Needs the extra `docs`.
"""

import logging
import os
import sys
import time
from pathlib import Path

from documentation.pages import ROOT
from documentation.site_check import faults
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.errors import DataError, ServiceUnavailableError


def build(out: Path = Path("build/site")) -> None:
    """Builds the site.

    Args:
        out: the folder to write; what it holds is replaced.
    """
    os.environ["NO_MKDOCS_2_WARNING"] = (
        "true"  # Material's advertisement, which --strict does not count
    )
    try:
        from mkdocs.commands.build import build as build_site
        from mkdocs.config import load_config
        from mkdocs.exceptions import Abort
    except ImportError:
        raise ServiceUnavailableError("mkdocs is not installed; pip install -e '.[docs]'") from None
    logging.getLogger("mkdocs").addHandler(logging.StreamHandler())
    start = time.perf_counter()
    try:
        build_site(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(out.absolute()), strict=True))
    except Abort as error:
        raise DataError(f"the site was not built: {error}") from None
    if lines := faults(out):
        raise DataError("\n".join(lines[:10]))
    count = sum(1 for _ in out.rglob("*.html"))
    print(f"{out / 'index.html'}: {count} pages in {time.perf_counter() - start:.1f} s")


main = build_main(__doc__, Subcommand(build), needs_args=False)

if __name__ == "__main__":
    sys.exit(main())
