"""Several volumes and raw devices: a set is served whole, or what is left of it read-only, and never mixed up."""

import json
import os
import random
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from conftest import EXTERNAL, client_for
from daemon import ACCESS_KEY, BINARY, SECRET_KEY, Daemon, free_port, new_data_dir

pytestmark = pytest.mark.skipif(bool(EXTERNAL) and not BINARY.exists(), reason="needs the weft binary")

BUCKET = "volumes"
MIB = 1 << 20


class Served(Daemon):
    """A daemon on several volumes."""

    def __init__(self, paths: list[Path], *flags: str, capacity: str | None = "256MiB"):
        log_dir = new_data_dir()
        super().__init__(*flags, data=log_dir)
        self.paths = paths
        self.capacity = capacity

    def command(self) -> list[str]:
        data = [part for path in self.paths for part in ("--data", str(path))]
        capacity = ["--capacity", self.capacity] if self.capacity else []
        return [str(BINARY), "serve", *data, "--listen", f"127.0.0.1:{self.port}", *capacity, *self.flags]

    def client(self):
        return client_for(self.endpoint)


def weft(*arguments) -> subprocess.CompletedProcess:
    environment = os.environ | {"WEFT_ACCESS_KEY": ACCESS_KEY, "WEFT_SECRET_KEY": SECRET_KEY}
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=60)


def refusal_of_start(paths, *flags) -> str:
    data = [part for path in paths for part in ("--data", path)]
    told = weft("serve", *data, "--listen", f"127.0.0.1:{free_port()}", *flags)
    assert told.returncode in (1, 2), told
    assert told.stderr.count("\n") == 1, told.stderr
    return told.stderr


def summaries(*paths) -> list[dict]:
    told = weft("volumes", "--json", *paths)
    assert told.stderr == "", told.stderr
    return json.loads(told.stdout)


@pytest.fixture
def two():
    """Two directories that do not exist yet."""
    base = new_data_dir()
    yield [base / "one", base / "two"]
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def serve():
    """Serves the given volumes; every daemon ends with the test."""
    made = []

    def start(paths, *flags, capacity="256MiB") -> Served:
        made.append(Served(paths, *flags, capacity=capacity))
        return made[-1].start()

    yield start
    for one in made:
        one.discard()


@contextmanager
def loop_device(size_bytes: int):
    """A block device of zeroes in a file."""
    base = new_data_dir()
    image = base / "image"
    with image.open("wb") as file:
        file.truncate(size_bytes)
    attached = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True)
    if attached.returncode != 0:
        shutil.rmtree(base)
        pytest.skip(f"loop devices are not permitted here: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        shutil.rmtree(base)


@pytest.fixture
def loop():
    with loop_device(512 * MIB) as device:
        yield device


def body_of(key: str, size: int) -> bytes:
    return random.Random(key).randbytes(size)


def fill(s3, count: int = 40) -> dict[str, int]:
    """Stores objects, small ones within logs and large ones in data segments; gives their sizes by key."""
    s3.create_bucket(Bucket=BUCKET)
    sizes = {f"{number:03}": [1000, 50_000, 900_000][number % 3] for number in range(count)}
    for key, size in sizes.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body_of(key, size))
    return sizes


def assert_all_there(s3, sizes: dict[str, int]) -> None:
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    assert listed == sorted(sizes)
    for key, size in sizes.items():
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body_of(key, size), key


def status_of(call, **arguments) -> tuple[int, str]:
    """What a call was refused with."""
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    response = refused.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"].get("Message", "")


def test_two_directories_are_one_set_through_restarts(two, serve):
    daemon = serve(two)
    assert f"{two[0]} {two[1]}" in daemon.log and "up to 512 MiB on 2 volumes" in daemon.log
    sizes = fill(daemon.client())
    daemon.stop()
    daemon.paths = two[::-1]
    daemon.start()
    assert_all_there(daemon.client(), sizes)
    daemon.kill()
    daemon.start()
    assert_all_there(daemon.client(), sizes)


def test_objects_are_spread_evenly(two, serve):
    daemon = serve(two)
    s3 = daemon.client()
    s3.create_bucket(Bucket=BUCKET)
    for number in range(150):
        s3.put_object(Bucket=BUCKET, Key=str(number), Body=bytes(MIB))
    daemon.stop()
    used = [volume["used_bytes"] for volume in summaries(*two)]
    assert sum(used) >= 150 * MIB
    assert max(used) - min(used) <= 4 * MIB, used


def test_a_volume_that_is_small_or_full_leaves_the_rest_to_the_others(two, serve):
    weft_format = weft("format", two[0], "--capacity", "256MiB", "--segment-size", "1MiB")
    assert weft_format.returncode == 0, weft_format.stderr
    joined = weft("format", "--join", *two, "--capacity", "512MiB")
    assert joined.returncode == 0, joined.stderr
    daemon = serve(two, capacity=None)
    s3 = daemon.client()
    s3.create_bucket(Bucket=BUCKET)
    for number in range(600):
        s3.put_object(Bucket=BUCKET, Key=str(number), Body=bytes(MIB))
    with pytest.raises(ClientError) as full:
        for number in range(600, 800):
            s3.put_object(Bucket=BUCKET, Key=str(number), Body=bytes(MIB))
    assert full.value.response["ResponseMetadata"]["HTTPStatusCode"] == 507
    assert s3.get_object(Bucket=BUCKET, Key="599")["Body"].read() == bytes(MIB)


def test_a_start_without_a_member_is_refused(two, serve):
    serve(two).stop()
    for missing, given in [(2, two[0]), (1, two[1])]:
        told = refusal_of_start([given])
        assert f"volume {missing} of the 2 of the set is missing" in told and "--degraded" in told
    # As when a disk is not mounted.
    empty = two[0].with_name("empty")
    empty.mkdir()
    assert "is it mounted?" in refusal_of_start([two[0], empty])
    assert list(empty.iterdir()) == []


def test_a_doubled_or_foreign_member_is_refused(two, serve):
    serve(two).stop()
    other = two[0].with_name("other")
    serve([other]).stop()
    assert "does not belong to the set" in refusal_of_start([*two, other])
    assert "are one volume" in refusal_of_start([*two, two[0]])
    link = two[0].with_name("link")
    link.symlink_to(two[0])
    assert "are one volume" in refusal_of_start([*two, link])
    copy = two[0].with_name("copy")
    shutil.copytree(two[0], copy)
    assert "one is a copy of the other" in refusal_of_start([*two, copy])
    empty = two[0].with_name("empty")
    assert "weft format --join" in refusal_of_start([*two, empty])
    assert not empty.exists()
    serve(two)


def test_an_old_copy_of_a_member_is_refused(two, serve):
    daemon = serve(two)
    daemon.stop()
    old = two[1].with_name("old")
    shutil.copytree(two[1], old)
    for _ in range(2):
        daemon.start().stop()
    told = refusal_of_start([two[0], old])
    assert "old copy" in told and str(old) in told
    assert "old copy" in refusal_of_start([two[0], old], "--degraded")


def test_degraded_serves_what_is_left_and_changes_nothing(two, serve):
    daemon = serve(two)
    s3 = daemon.client()
    sizes = fill(s3, 60)
    daemon.stop()
    away = two[1].with_name("away")
    two[1].rename(away)
    before = {path: path.read_bytes() for path in two[0].rglob("*") if path.is_file() and path.name != "weft.lock"}

    left = serve([two[0]], "--degraded", capacity=None)
    assert "DEGRADED: 1 of 2 volumes are missing" in left.log
    s3 = left.client()
    buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    bucket = next((name for name in buckets if name == BUCKET or name.startswith("lost-")), None)
    assert bucket, "the log of one core is left, and some of its objects"
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    served = 0
    for key, size in sizes.items():
        try:
            assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body_of(key, size), key
            assert key in listed
            served += 1
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503, (key, error)
    assert 0 < served < len(sizes)
    body = bytes(1000)
    for call, arguments in [
        (s3.put_object, {"Bucket": bucket, "Key": "new", "Body": body}),
        (s3.put_object, {"Bucket": bucket, "Key": "new", "Body": bytes(MIB)}),
        (s3.delete_object, {"Bucket": bucket, "Key": listed[0]}),
        (s3.create_bucket, {"Bucket": "another"}),
        (s3.delete_bucket, {"Bucket": bucket}),
        (s3.create_multipart_upload, {"Bucket": bucket, "Key": "new"}),
        (s3.copy_object, {"Bucket": bucket, "Key": "new", "CopySource": f"{bucket}/{listed[0]}"}),
        (s3.get_object, {"Bucket": bucket, "Key": "never-stored"}),
        (s3.list_objects_v2, {"Bucket": "never-made"}),
    ]:
        status, message = status_of(call, **arguments)
        assert status == 503 and "volume" in message, (call, status, message)
    left.stop()
    after = {path: path.read_bytes() for path in two[0].rglob("*") if path.is_file() and path.name != "weft.lock"}
    assert after == before

    away.rename(two[1])
    daemon.start()
    assert_all_there(daemon.client(), sizes)


def test_an_empty_volume_joins(two, serve):
    daemon = serve(two[:1])
    sizes = fill(daemon.client())
    daemon.stop()
    assert weft("format", "--join", *two, "--capacity", "256MiB").returncode == 0
    assert "volume 2 of the 2" in refusal_of_start(two[:1])
    daemon.paths = two
    daemon.start()
    s3 = daemon.client()
    assert_all_there(s3, sizes)
    for number in range(40):
        s3.put_object(Bucket=BUCKET, Key=f"more-{number}", Body=bytes(MIB))
    daemon.stop()
    assert summaries(*two)[1]["used_bytes"] >= 20 * MIB


def test_volumes_are_shown_while_they_are_served(two, serve):
    serve(two)
    first, second = summaries(*two)
    assert (first["number"], first["of"], first["kind"], first["size_bytes"]) == (1, 2, "directory", 256 * MIB)
    assert second["number"] == 2 and second["starts"] == 1 and second["errors"] == 0
    # Each core has taken a log, from whichever volume had its turn.
    assert first["live_bytes"] is None and first["used_bytes"] + second["used_bytes"] > 0
    table = weft("volumes", *two)
    assert table.returncode == 0
    lines = table.stdout.splitlines()
    assert re.split(r" {2,}", lines[0]) == ["PATH", "ID", "VOLUME", "SIZE", "USED", "LIVE", "RECLAIMABLE", "ERRORS"]
    assert lines[1].startswith(str(two[0])) and "1 of 2" in lines[1]
    # Told to nobody: it lies in the header of every segment.
    segments = [segment for path in two for segment in (path / "segments").iterdir()]
    secret = segments[0].read_bytes()[32:48].hex()
    assert secret not in json.dumps([first, second])


def test_volumes_names_what_is_wrong(two, serve):
    daemon = serve(two)
    fill(daemon.client(), 10)
    daemon.stop()
    segment = next((two[0] / "segments").iterdir())
    with segment.open("r+b") as file:
        file.write(b"?" * 4096)
    told = weft("volumes", "--json", *two, two[0].with_name("none"))
    assert told.returncode == 1 and "none" in told.stderr
    first, second = json.loads(told.stdout)
    assert (first["errors"], second["errors"]) == (1, 0)


def test_a_directory_that_holds_something_is_not_formatted(two, serve):
    daemon = serve(two)
    sizes = fill(daemon.client(), 5)
    daemon.stop()
    told = weft("format", *two)
    assert told.returncode == 1 and "--force destroys it" in told.stderr
    daemon.start()
    assert_all_there(daemon.client(), sizes)
    told = weft("format", "--force", *two)
    assert told.returncode == 1 and "in use" in told.stderr
    daemon.stop()
    assert weft("format", "--force", *two, "--capacity", "256MiB").returncode == 0
    daemon.start()
    assert daemon.client().list_buckets()["Buckets"] == []


def test_a_device_is_formatted_served_killed_and_served_again(loop, serve):
    assert "weft format" in refusal_of_start([loop])
    told = weft("format", loop)
    assert told.returncode == 0, told.stderr
    daemon = serve([loop], capacity=None)
    assert "up to 510 MiB in segments of 1 MiB, start 1" in daemon.log
    told = weft("format", "--force", loop)
    assert told.returncode == 1 and "is in use" in told.stderr
    sizes = fill(daemon.client(), 60)
    assert summaries(loop)[0]["kind"] == "device"
    daemon.kill()
    daemon.start()
    assert_all_there(daemon.client(), sizes)
    daemon.stop()
    daemon.start()
    assert_all_there(daemon.client(), sizes)
    volume = summaries(loop)[0]
    assert volume["errors"] == 0 and volume["starts"] == 3 and 18 * MIB < volume["used_bytes"] < 60 * MIB


def test_a_device_is_filled_cleaned_and_filled_again(loop, serve):
    assert weft("format", loop).returncode == 0
    daemon = serve([loop], capacity=None)
    s3 = daemon.client()
    s3.create_bucket(Bucket=BUCKET)
    for number in range(750):
        key = str(number % 150)
        s3.put_object(Bucket=BUCKET, Key=key, Body=body_of(f"{number}", MIB))
    for key in range(0, 150, 7):
        latest = key + 150 * ((749 - key) // 150)
        assert s3.get_object(Bucket=BUCKET, Key=str(key))["Body"].read() == body_of(f"{latest}", MIB)


def test_a_device_and_a_directory_are_a_set(loop, two, serve):
    told = weft("format", loop, two[0], "--capacity", "256MiB")
    assert told.returncode == 0, told.stderr
    daemon = serve([two[0], loop], capacity=None)
    sizes = fill(daemon.client(), 60)
    daemon.kill()
    daemon.start()
    assert_all_there(daemon.client(), sizes)
    daemon.stop()
    device, directory = summaries(loop, two[0])
    assert device["used_bytes"] > 5 * MIB and directory["used_bytes"] > 5 * MIB
    assert "volume 1 of the 2 of the set is missing" in refusal_of_start([two[0]])


def sectors(written: dict[int, bytes]):
    """Writes what a partitioning tool would."""

    def write(device: Path) -> None:
        with device.open("r+b") as file:
            for offset, content in written.items():
                file.seek(offset)
                file.write(content)

    return write


def tool(*command: str):
    def run(device: Path) -> None:
        if not shutil.which(command[0]):
            pytest.skip(f"{command[0]} is not installed")
        subprocess.run([*command, device], check=True, capture_output=True)

    return run


@pytest.mark.parametrize(
    "make, what",
    [
        (tool("mkfs.ext4", "-q", "-F"), "ext4"),
        (tool("mkswap"), "swap"),
        (sectors({510: b"\x55\xaa", 512: b"EFI PART", 512 * MIB - 512: b"EFI PART"}), "GPT"),
        (sectors({446: b"\x80" + bytes(15), 510: b"\x55\xaa"}), "MBR"),
    ],
    ids=["ext4", "swap", "gpt", "mbr"],
)
def test_format_refuses_a_device_that_holds_something(loop, serve, make, what):
    make(loop)
    before = loop.read_bytes()
    told = weft("format", loop)
    assert told.returncode == 1 and what in told.stderr and "--force" in told.stderr, told.stderr
    assert "weft format" in refusal_of_start([loop])
    assert loop.read_bytes() == before
    assert weft("format", "--force", loop).returncode == 0
    daemon = serve([loop], capacity=None)
    sizes = fill(daemon.client())
    assert_all_there(daemon.client(), sizes)


def test_format_refuses_any_byte_at_the_edges_of_a_device(loop):
    for offset in [0, 12345, MIB - 1, 511 * MIB, 512 * MIB - 1]:
        with loop.open("r+b") as device:
            device.seek(offset)
            device.write(b"x")
        told = weft("format", loop)
        assert told.returncode == 1 and "--force" in told.stderr, (offset, told)
        with loop.open("r+b") as device:
            device.seek(offset)
            device.write(b"\0")
    assert weft("format", loop).returncode == 0
    told = weft("format", loop)
    assert told.returncode == 1 and "holds a weft volume" in told.stderr


def test_a_mounted_device_is_refused(loop):
    mount_point = new_data_dir()
    subprocess.run(["mkfs.ext4", "-q", "-F", loop], check=True, capture_output=True)
    mounted = subprocess.run(["mount", loop, mount_point], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    try:
        told = weft("format", "--force", loop)
        assert told.returncode == 1 and "it is mounted" in told.stderr
    finally:
        subprocess.run(["umount", mount_point], check=True)
        mount_point.rmdir()


def test_what_was_copied_from_a_larger_device_is_refused(loop):
    assert weft("format", loop).returncode == 0
    with loop_device(300 * MIB) as smaller:
        with smaller.open("r+b") as device:
            device.write(loop.read_bytes()[:MIB])
        assert "has 300 MiB" in refusal_of_start([smaller])


def test_either_copy_of_a_devices_superblock_will_do(loop, serve):
    assert weft("format", loop).returncode == 0
    daemon = serve([loop], capacity=None)
    sizes = fill(daemon.client())
    daemon.stop()
    whole = loop.read_bytes()[:MIB]
    for offset in [0, MIB // 2]:
        with loop.open("r+b") as device:
            device.write(whole)
            device.seek(offset)
            device.write(b"?" * 4096)
        volume = weft("volumes", "--json", loop)
        assert volume.returncode == 0, volume.stderr
    # One copy is damaged still.
    daemon.start()
    assert_all_there(daemon.client(), sizes)
    daemon.stop()
    with loop.open("r+b") as device:
        for offset in [0, MIB // 2]:
            device.seek(offset + 20)
            device.write(b"?" * 100)
    assert "damaged in both copies" in refusal_of_start([loop])
