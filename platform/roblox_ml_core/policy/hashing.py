"""From a salt and a unit to one of 10,000 buckets: the one hash that every assignment is made with.

XXH64 (Collet) because libraries for it exist in every language, and because it costs a tenth of a cryptographic hash, which
adds nothing here: nobody gains by choosing a user id that falls into an arm.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from xxhash import xxh64_intdigest

__all__ = ["SCALE", "bucket", "seed_of", "threshold"]

#: Shares, weights and buckets are counted in 10,000ths.
SCALE = 10_000


@lru_cache(maxsize=65536)
def seed_of(salt: str) -> int:
    """The hash's seed: the first eight bytes, big endian, of the salt's sha256."""
    return int.from_bytes(sha256(salt.encode()).digest()[:8], "big")


def bucket(seed: int, unit: str) -> int:
    """The unit's bucket, 0 to 9,999: the hash's upper part (`hash * 10000 / 2**64`), so that every bucket is as likely."""
    return (xxh64_intdigest(unit.encode("utf-8", "surrogatepass"), seed) * SCALE) >> 64


def threshold(bucket: int) -> int:
    """The smallest hash that falls into the bucket: comparing hashes saves a multiplication of large integers for each."""
    return -((-bucket << 64) // SCALE)
