"""A small volume that is overwritten and deleted many times over: room comes back, and nothing is lost."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError
from conftest import client_for
from daemon import wait_until

MIB = 1 << 20
CAPACITY = 256 * MIB
SIZES = [4 << 10, 16 << 10, 100 << 10, 500 << 10, MIB, 2 * MIB]
THREADS = 6
BUCKET = "cleaned"
# Bytes to cut bodies from: making them anew would take longer than storing them.
NOISE = random.Random(1).randbytes(8 * MIB)


class Volume:
    """What was stored in a daemon, by key: the size and digest of each body."""

    def __init__(self, daemon):
        self.s3 = client_for(daemon.endpoint)
        self.stored: dict[str, tuple[int, bytes]] = {}
        self.s3.create_bucket(Bucket=BUCKET)

    def put(self, key: str, size: int, seed: int) -> int:
        at = random.Random(seed).randrange(len(NOISE) - size)
        body = NOISE[at : at + size]
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        self.stored[key] = (size, hashlib.md5(body).digest())
        return size

    def live_bytes(self) -> int:
        return sum(size for size, _ in self.stored.values())

    def check(self, key: str) -> None:
        size, digest = self.stored[key]
        body = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert (len(body), hashlib.md5(body).digest()) == (size, digest), key

    def check_all(self) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(self.check, list(self.stored)))
        listed = set()
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            listed |= {entry["Key"] for entry in page.get("Contents", [])}
        assert listed == set(self.stored)

    def fill(self, bytes_wanted: int, prefix: str) -> None:
        chance = random.Random(prefix)
        while self.live_bytes() < bytes_wanted:
            self.put(f"{prefix}/{len(self.stored)}", chance.choice(SIZES), chance.getrandbits(40))


def test_a_volume_is_overwritten_many_times_over(own_daemon):
    daemon = own_daemon("--cores", "2", capacity="256MiB").start()
    volume = Volume(daemon)
    volume.fill(CAPACITY * 60 // 100, "one")
    keys = list(volume.stored)

    def overwrite(share: int) -> int:
        """Overwrites keys that are this thread's alone."""
        chance, written = random.Random(share), 0
        while written < 3 * CAPACITY // THREADS:
            key = chance.choice(keys[share::THREADS])
            written += volume.put(key, volume.stored[key][0], chance.getrandbits(40))
        return written

    with ThreadPoolExecutor(THREADS) as threads:
        assert sum(threads.map(overwrite, range(THREADS))) >= 3 * CAPACITY
    volume.check_all()
    daemon.kill()
    daemon.start()
    volume.s3 = client_for(daemon.endpoint)
    volume.check_all()
    daemon.stop()
    assert "pages of 0 runs" not in daemon.assert_clean()


def test_what_is_deleted_from_a_full_volume_makes_room(own_daemon):
    daemon = own_daemon("--cores", "2", capacity="256MiB").start()
    volume = Volume(daemon)
    with pytest.raises(ClientError) as full:
        volume.fill(CAPACITY, "one")
    assert full.value.response["ResponseMetadata"]["HTTPStatusCode"] == 507
    assert volume.live_bytes() > CAPACITY * 70 // 100
    # Scattered: hardly a segment is left with nothing in it.
    for key in list(volume.stored)[::2]:
        volume.s3.delete_object(Bucket=BUCKET, Key=key)
        del volume.stored[key]
    wanted = volume.live_bytes() + CAPACITY // 5

    def is_filled() -> bool:
        try:
            volume.fill(wanted, f"two-{len(volume.stored)}")
            return True
        except ClientError as refusal:
            assert refusal.response["ResponseMetadata"]["HTTPStatusCode"] in (503, 507)
            return False

    wait_until(is_filled, 10, "room for a fifth of the volume")
    volume.check_all()
    daemon.stop()
    daemon.assert_clean()
