"""One BLAS thread for tests: OpenBLAS's threads spin, and the suite runs many small processes on few cores."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
