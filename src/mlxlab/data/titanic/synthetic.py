"""Synthetic passengers for experiments; used only with `data.source=synthetic`."""

import numpy as np

from mlxlab.data.titanic.passenger import Passenger

SURNAMES = ("Ashdown", "Birch", "Calloway", "Dunmore", "Elling", "Fenwick", "Garrow", "Hale", "Inchbald", "Jessop")


def synthetic_passengers(count: int) -> list[Passenger]:
    """The same `count` passengers on every call; women and the upper classes survive more often."""
    rng = np.random.default_rng(1912)
    return [_generate(number, rng) for number in range(1, count + 1)]


def _generate(number: int, rng: np.random.Generator) -> Passenger:
    female, pclass = bool(rng.random() < 0.35), int(rng.choice([1, 2, 3], p=[0.25, 0.2, 0.55]))
    probability = 1 / (1 + np.exp(-(2.6 * female - 0.9 * pclass + 0.4)))
    surname = SURNAMES[int(rng.integers(len(SURNAMES)))]
    return Passenger(
        id=number,
        survived=int(rng.random() < probability),
        pclass=pclass,
        name=f"{surname}, {'Mrs' if female else 'Mr'}. Number {number}",
        sex="female" if female else "male",
        age=None if rng.random() < 0.2 else float(rng.integers(1, 75)),
        sibsp=int(rng.integers(0, 3)),
        parch=int(rng.integers(0, 3)),
        ticket=f"S {int(rng.integers(1000, 2000))}",
        fare=round(float(rng.gamma(2.0, 15.0 / pclass)), 2),
        cabin=None,
        embarked=str(rng.choice(["S", "C", "Q"])),
    )
