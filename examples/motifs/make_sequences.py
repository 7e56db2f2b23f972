"""Writes DNA sequences in FASTA format, half of them with the binding site TGACTCA; a tenth of the labels is wrong.

    python make_sequences.py 1200 > sequences.fasta

Every fifth sequence, which the data set validates on, has its true label.
"""

import random
import sys

SITE, LENGTH, WRONG = "TGACTCA", 40, 0.1


def sequence(rng: random.Random, has_site: bool) -> str:
    """Random bases, with the site at a random position, or nowhere."""
    while True:
        bases = "".join(rng.choices("ACGT", k=LENGTH))
        if SITE not in bases:
            break
    start = rng.randrange(LENGTH - len(SITE))
    return bases[:start] + SITE + bases[start + len(SITE) :] if has_site else bases


def main() -> None:
    rng = random.Random(0)
    for number in range(int(sys.argv[1])):
        has_site = rng.random() < 0.5
        is_wrong = number % 5 != 4 and rng.random() < WRONG
        print(f">s{number} {'bound' if has_site != is_wrong else 'unbound'}\n{sequence(rng, has_site)}")


if __name__ == "__main__":
    main()
