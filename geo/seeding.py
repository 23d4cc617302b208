"""Random generators that depend on names, not on processes: the same (seed, names) gives the same draws everywhere."""

import hashlib

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Generator seeded with the SHA-256 of seed and names (never `hash()`, which differs between processes).

    Examples
    --------
    >>> bool(generator(7, "helsinki-0007", "users").random() == generator(7, "helsinki-0007", "users").random())
    True
    """
    text = "/".join(str(part) for part in (seed, *names))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))
