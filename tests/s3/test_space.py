"""A volume that is full time after time: it serves the rest, takes deletes, and then writes within seconds."""

import os
import random

import pytest
from botocore.exceptions import ClientError
from check import MIB
from conftest import client_for
from daemon import wait_until
from test_cleaning import Volume

CAPACITY = 256 * MIB
# Each fills a volume and deletes half of it; WEFT_FULL_ROUNDS=10 is the long way.
ROUNDS = int(os.environ.get("WEFT_FULL_ROUNDS", "2"))
SIZES = [4 << 10, 30 << 10, 300 << 10, 2 * MIB]


def status_of(refusal) -> int:
    return refusal.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_a_volume_is_full_and_half_deleted_again_and_again(own_daemon):
    daemon = own_daemon("--cores", "2", capacity="256MiB").start()
    volume = Volume(daemon)
    chance = random.Random(5)
    for number in range(ROUNDS):
        with pytest.raises(ClientError) as full:
            while True:
                volume.put(f"{number}/{len(volume.stored)}", chance.choice(SIZES), chance.getrandbits(40))
        assert status_of(full) == 507
        volume.check_all()
        keys = list(volume.stored)
        for key in chance.sample(keys, len(keys) // 2):
            volume.s3.delete_object(Bucket="cleaned", Key=key)
            del volume.stored[key]

        def takes_writes() -> bool:
            try:
                return volume.put(f"again-{number}", 2 * MIB, number) > 0
            except ClientError as refusal:
                assert refusal.response["ResponseMetadata"]["HTTPStatusCode"] in (503, 507)
                return False

        wait_until(takes_writes, 10, "a write after half was deleted")
        if number % 2:
            daemon.kill()
            daemon.start()
            volume.s3 = client_for(daemon.endpoint)
        volume.check_all()
    daemon.stop()
