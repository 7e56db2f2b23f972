"""The kernels this process uses: MLX's, or the native ones, once they were built, checked and loaded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KernelSet:
    """The kernels of a run; its text is recorded with the run, and a resume uses an equal one.

    Args:
        digest: of the sources and the flags they were compiled with; "" without native kernels.
        features: what the compiler found in the processor, separated by commas: `avx512,bfloat16,amx`.
    """

    digest: str = ""
    features: str = ""

    def __str__(self) -> str:
        if not self.digest:
            return "none"
        return f"native {self.digest} {self.features}".rstrip()


MLX = KernelSet()
_current = MLX
_is_active = False


def is_active() -> bool:
    """Whether operators call the native kernels."""
    return _is_active


def current() -> KernelSet:
    """The kernels that this process uses."""
    return _current


def use(kernels: KernelSet) -> None:
    """Switches to kernels that are loaded. What MLX compiled before keeps the old ones."""
    global _current, _is_active
    _current = kernels
    _is_active = kernels != MLX


def deactivate() -> None:
    """Returns to the kernels of MLX; a loaded library stays loaded."""
    use(MLX)
