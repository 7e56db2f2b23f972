"""The seed of a step's random numbers."""


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The random numbers of a step are a function of (seed, step, rank): there is no random state to save."""
    mixed = seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + rank * 0xC2B2AE3D27D4EB4F
    return (mixed + 0x632BE59BD9B4E019) % 2**64
