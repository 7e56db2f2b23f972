"""Prepares MLX before `mlx.core` is imported. Imports nothing heavy itself."""

from mlxlab.backend.device import describe as describe
from mlxlab.backend.device import memory_budget as memory_budget
from mlxlab.backend.device import on_cpu as on_cpu
from mlxlab.backend.device import on_linux_cpu as on_linux_cpu
from mlxlab.backend.device import prepare as prepare
from mlxlab.backend.memory import is_out_of_memory as is_out_of_memory
from mlxlab.backend.memory import release_memory as release_memory
from mlxlab.backend.openblas import blas_threads as blas_threads
from mlxlab.backend.openblas import one_blas_thread as one_blas_thread
