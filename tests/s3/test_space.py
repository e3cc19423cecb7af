"""A volume that is full time after time: it serves the rest, takes deletes, and then writes within seconds."""

import os
import random
import re
import subprocess

import pytest
from botocore.exceptions import ClientError
from check import MIB, body_of, new_upload, pattern, put_part, refused
from conftest import client_for
from daemon import BINARY, new_data_dir, wait_until
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


def test_uploads_that_are_too_old_are_ended(own_daemon):
    daemon = own_daemon("--cores", "2", capacity="256MiB").start()
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket="uploads")
    for number in range(20):
        upload = new_upload(s3, "uploads", f"key-{number}")
        put_part(s3, "uploads", f"key-{number}", upload, 1, pattern(100_000))
    daemon.stop()
    # 40 s: those of before are looked at from the first sweep on, and a new one is not that old.
    daemon.flags = (*daemon.flags, "--abort-uploads-after", "0.00002")
    daemon.start()
    s3 = client_for(daemon.endpoint)
    wait_until(lambda: "Uploads" not in s3.list_multipart_uploads(Bucket="uploads"), 20, "the end of old uploads")
    with refused(404, "NoSuchUpload"):
        put_part(s3, "uploads", "key-19", upload, 2, b"late")
    daemon.stop()


@pytest.mark.parametrize("days", ["0", "-1", "a week", "1e3"])
def test_an_age_of_uploads_that_is_none_is_refused(days):
    serve = [str(BINARY), "serve", "--data", str(new_data_dir()), f"--abort-uploads-after={days}"]
    ended = subprocess.run(serve, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2 and "--abort-uploads-after" in ended.stderr


def test_what_is_lost_is_given_up_when_told_to(own_daemon):
    daemon = own_daemon("--cores", "2", capacity="256MiB").start()
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket="given-up")
    for number in range(100):
        s3.put_object(Bucket="given-up", Key=f"small-{number}", Body=pattern(10_000, number))
        s3.put_object(Bucket="given-up", Key=f"large-{number}", Body=pattern(MIB, number))
    daemon.stop()
    live = re.findall(r"space +(\d+) bytes live, (\d+) of 256", daemon.log)
    assert len(live) == 2 and 100 * MIB < int(live[1][0]) < 120 * MIB
    lost = sorted(daemon.data.glob("segments/*"))[5]
    lost.unlink()
    daemon.start()
    assert "DAMAGE" in daemon.log and "--accept-damage" in daemon.log
    daemon.stop()
    daemon.flags = (*daemon.flags, "--accept-damage")
    daemon.start()
    assert "this is given up" in daemon.log
    s3 = client_for(daemon.endpoint)
    for bucket in s3.list_buckets()["Buckets"]:
        for listed in s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents", []):
            s3.delete_object(Bucket=bucket["Name"], Key=listed["Key"])
    # Far more than what was never written: the room of what was lost and deleted is used.
    s3.create_bucket(Bucket="again")
    for number in range(600):
        s3.put_object(Bucket="again", Key=f"key-{number % 100}", Body=pattern(MIB, number))
    daemon.stop()
    daemon.flags, told = daemon.flags[:-1], daemon.log.count("DAMAGE")
    daemon.start()
    assert daemon.log.count("DAMAGE") == told, daemon.log
    s3 = client_for(daemon.endpoint)
    for number in range(100):
        assert body_of(s3, "again", f"key-{number}") == pattern(MIB, 500 + number)
    daemon.stop()
