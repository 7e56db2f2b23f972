"""A bucket on loopback with limited bandwidth, in a process of its own until the standard input ends: for benchmarks.

    python -m support.object_stores.serve <bucket> <bytes per second, or inf>

Prints its URL. It has a low priority: elsewhere it would run on another machine.
"""

import os
import sys

from support.object_stores.fault_proxy import FaultProxy
from support.object_stores.gcs_server import GcsServer


def main(bucket: str, bytes_per_second: str) -> None:
    os.nice(10)
    proxy = FaultProxy(GcsServer(bucket).url)
    proxy.bytes_per_second = float(bytes_per_second)
    print(proxy.url, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
