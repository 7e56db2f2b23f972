"""What must happen before `mlx.core` is used. May be imported by anyone, and imports nothing heavy itself."""

from mlxlab.backend.blas import blas_threads as blas_threads
from mlxlab.backend.blas import one_blas_thread as one_blas_thread
from mlxlab.backend.launched import is_launched as is_launched
from mlxlab.backend.launched import rank as rank
from mlxlab.backend.machine import describe as describe
from mlxlab.backend.machine import memory_budget as memory_budget
from mlxlab.backend.machine import prepare as prepare
