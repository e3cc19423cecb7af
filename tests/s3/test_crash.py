"""SIGKILL under a mixed write load: what was acknowledged is there, whole; what was in flight is old or new."""

import os
import random
import time

import pytest
from check import PART, keys_of, md5, pattern
from conftest import client_for
from writers import BUCKET, load_until, new_writers, verify_all

ROUNDS = int(os.environ.get("WEFT_CRASH_ROUNDS", "3"))
RESTART_SECONDS_MAX = 3.0
CLEANED_BYTES = 256 << 20


@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_acknowledged_changes_outlive_sigkill(own_daemon):
    """WEFT_CRASH_ROUNDS kills, the number of cores now and then another one. The seed is printed on failure."""
    seed = int(os.environ.get("WEFT_CRASH_SEED", time.time_ns() % 1_000_000))
    print(f"WEFT_CRASH_SEED={seed}")
    dice = random.Random(seed)
    daemon = own_daemon(capacity="4GiB").start()
    client_for(daemon.endpoint).create_bucket(Bucket=BUCKET)
    writers = new_writers(daemon, seed)
    for round in range(ROUNDS):
        load_until(daemon.kill, daemon, writers, dice.uniform(0.3, 2.5))
        daemon.assert_clean()
        daemon.flags = ("--cores", dice.choice(["1", "2"]))
        daemon.start()
        assert daemon.ready_seconds < RESTART_SECONDS_MAX, f"round {round}: restart took {daemon.ready_seconds:.1f} s"
        verify_all(writers)
    assert sum(writer.changes for writer in writers) > 20 * ROUNDS, "too little load to prove anything"
    daemon.stop()
    daemon.assert_clean()


@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_acknowledged_changes_outlive_sigkill_while_segments_are_cleaned(own_daemon):
    """As above on a volume that is half full and written over several times: it lives off cleaning."""
    seed = int(os.environ.get("WEFT_CRASH_SEED", time.time_ns() % 1_000_000))
    print(f"WEFT_CRASH_SEED={seed}")
    dice = random.Random(seed)
    daemon = own_daemon(capacity=f"{CLEANED_BYTES >> 20}MiB").start()
    client_for(daemon.endpoint).create_bucket(Bucket=BUCKET)
    writers = new_writers(daemon, seed, keys=24)
    for round in range(ROUNDS):
        wanted_bytes = (round + 1) * CLEANED_BYTES // 4
        is_enough = lambda: put_bytes(writers) >= wanted_bytes  # noqa: B023, E731 - called within the round
        load_until(daemon.kill, daemon, writers, dice.uniform(0.3, 1.5), is_enough)
        daemon.assert_clean()
        daemon.flags = ("--cores", dice.choice(["1", "2"]))
        daemon.start()
        verify_all(writers)
    print(f"changes: {sum(w.changes for w in writers)}; PUTs: {put_bytes(writers) / CLEANED_BYTES:.1f} times the capacity")
    daemon.stop()
    daemon.assert_clean()


def put_bytes(writers) -> int:
    return sum(writer.put_bytes for writer in writers)


def test_buckets_and_uploads_outlive_sigkill(own_daemon):
    daemon = own_daemon().start()
    s3 = client_for(daemon.endpoint)
    for index in range(10):
        s3.create_bucket(Bucket=f"bucket-{index}")
        if index % 2:
            s3.delete_bucket(Bucket=f"bucket-{index}")
    upload = s3.create_multipart_upload(Bucket="bucket-0", Key="k", Metadata={"a": "1"})["UploadId"]
    part = s3.upload_part(Bucket="bucket-0", Key="k", UploadId=upload, PartNumber=1, Body=pattern(PART))["ETag"]
    gone = s3.create_multipart_upload(Bucket="bucket-0", Key="k")["UploadId"]
    s3.abort_multipart_upload(Bucket="bucket-0", Key="k", UploadId=gone)
    daemon.kill()
    daemon.start()
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == [f"bucket-{index}" for index in range(0, 10, 2)]
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket="bucket-0")["Uploads"]] == [upload]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    s3.complete_multipart_upload(Bucket="bucket-0", Key="k", UploadId=upload, MultipartUpload=parts)
    daemon.kill()
    daemon.start()
    got = s3.get_object(Bucket="bucket-0", Key="k")
    assert (md5(got["Body"].read()), got["Metadata"]) == (md5(pattern(PART)), {"a": "1"})
    daemon.stop()
    daemon.assert_clean()


def test_a_crash_right_after_the_first_start_loses_nothing(own_daemon):
    daemon = own_daemon().start()
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket="first")
    daemon.kill()
    for round in range(3):
        daemon.start()
        s3.put_object(Bucket="first", Key=str(round), Body=pattern(1000, round))
        daemon.kill()
    daemon.start()
    assert keys_of(s3, "first") == ["0", "1", "2"]
    daemon.stop()
    daemon.assert_clean()
