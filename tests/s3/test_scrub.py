"""The scrub of a running daemon tells of damage that no client has met, and goes on where it was."""

import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from check import MIB, pattern
from conftest import client_for
from daemon import free_port, new_data_dir, wait_until
from test_damage import inspected, run
from test_metrics import Admin, Figures
from test_volumes import Served, loop_device, weft

FOUND_SECONDS = 60.0
# A core tells where it is every 10 s.
KEPT_SECONDS = 60.0
DEVICE_MEMO_AT = 256 * 1024


def flip(path: Path, offset: int) -> None:
    """Flips a bit of what is on the disk: a daemon that runs reads past the page cache."""
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def with_admin(make, *flags: str, **options) -> Admin:
    port = free_port()
    return Admin(make(*flags, "--cores", "1", "--admin-listen", f"127.0.0.1:{port}", **options), port)


def figures(admin: Admin) -> Figures:
    return admin.scrape()


def test_damage_is_found_without_a_client_and_check_names_the_same(own_daemon):
    admin = with_admin(own_daemon, "--scrub-rate", "0", capacity="256MiB")
    daemon = admin.daemon.start()
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="large\n", Body=pattern(MIB))
    s3.put_object(Bucket="bucket", Key="small", Body=pattern(1000))
    s3.put_object(Bucket="bucket", Key="last", Body=pattern(1000, 1))
    assert figures(admin)["weft_scrub_passes_total"] == 0
    daemon.stop()
    assert "scrub" not in daemon.log
    (large,) = inspected(daemon.data, "--key", "bucket/large\n")["records"]
    extent = large["changes"][0]["value"]["extents"][0]
    segments = daemon.data / "segments"
    flip(segments / f"{extent['segment']}.seg", extent["offset"] + 70_000)
    (small,) = inspected(daemon.data, "--key", "bucket/small")["records"]
    flip(segments / f"{small['segment']}.seg", small["offset"] + small["length"] - 1)
    # A place that cannot be read is none.
    (daemon.data / "scrub").write_bytes(b"WEFTSCRB" * 512)
    daemon.flags = ("--scrub-rate", "1GiB", *daemon.flags[2:])
    daemon.start()
    in_blocks = re.compile(rf"weft: scrub: segment {extent['segment']}: .*, at (\d+), of bucket/large\\n$", re.M)
    in_log = re.compile(
        rf"weft: scrub: log segment {small['segment']}: bytes (\d+) to (\d+) held batches and are damaged$", re.M
    )
    at_block = wait_until(lambda: in_blocks.search(daemon.log), FOUND_SECONDS, "the damaged block")
    at_batch = wait_until(lambda: in_log.search(daemon.log), FOUND_SECONDS, "the damaged batch")
    assert s3.get_object(Bucket="bucket", Key="last")["Body"].read() == pattern(1000, 1)
    # Its record could be read all the same, so that it is known whose the body is.
    in_body = re.compile(
        rf"weft: scrub: segment {small['segment']}: the small body at (\d+) is damaged, of bucket/small$", re.M
    )
    at_body = wait_until(lambda: in_body.search(daemon.log), FOUND_SECONDS, "the damaged body")
    told = wait_until(lambda: (f := figures(admin))["weft_scrub_passes_total"] and f, FOUND_SECONDS, "a whole pass")
    assert told["weft_scrub_findings_total"] == 3 * told["weft_scrub_passes_total"]
    assert told["weft_scrub_read_bytes_total"] > MIB and told["weft_scrub_ended_seconds"] > 1.7e9
    daemon.stop()
    (report,) = json.loads(run("check", "--json", daemon.data).stdout)
    places = {(f["what"], f["segment"], f["offset"], f.get("key")) for f in report["findings"]}
    assert ("block", extent["segment"], int(at_block[1]), "large\n") in places
    assert ("body", small["segment"], int(at_body[1]), "small") in places
    assert ("log", small["segment"], int(at_batch[1]), None) in places
    assert len(places) == 3


def test_a_body_that_rots_while_the_daemon_runs_is_found(own_daemon):
    daemon = own_daemon("--scrub-rate", "1GiB", "--cores", "1", capacity="256MiB").start()
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="photos/cat", Body=pattern(5000))
    (path,) = [path for path in (daemon.data / "segments").iterdir() if pattern(5000) in path.read_bytes()]
    flip(path, path.read_bytes().index(pattern(5000)) + 100)
    segment = path.name.removesuffix(".seg")
    told = re.compile(rf"scrub: segment {segment}: the small body at \d+ is damaged, of bucket/photos/cat$", re.M)
    wait_until(lambda: told.search(daemon.log), FOUND_SECONDS, "the damaged body")


@pytest.mark.parametrize("kind", ["directory", "device", "two directories"])
def test_a_pass_goes_on_after_a_kill(kind):
    """A pass that takes half a minute is cut off when its place was kept, and the rest of it takes a moment."""
    stored = 64 * MIB
    with ExitStack() as stack:
        if kind == "device":
            paths = [stack.enter_context(loop_device(512 * MIB))]
            assert weft("format", *paths).returncode == 0
        else:
            paths = [new_data_dir() / "one", new_data_dir() / "two"][: 1 if kind == "directory" else 2]

        def has_place() -> bool:
            if kind == "device":
                with paths[0].open("rb") as device:
                    device.seek(DEVICE_MEMO_AT)
                    return device.read(8) == b"WEFTSCRB"
            return (paths[0] / "scrub").exists()

        def make(*flags: str) -> Served:
            daemon = Served(paths, *flags, capacity=None if kind == "device" else "256MiB")
            stack.callback(daemon.discard)
            return daemon

        admin = with_admin(make, "--scrub-rate", "0")
        daemon = admin.daemon.start()
        s3 = client_for(daemon.endpoint)
        s3.create_bucket(Bucket="bucket")
        for number in range(stored // (2 * MIB)):
            s3.put_object(Bucket="bucket", Key=f"{number:03}", Body=pattern(2 * MIB, number))
        daemon.stop()
        daemon.flags = ("--scrub-rate", "2MiB", *daemon.flags[2:])
        assert not has_place()
        daemon.start()
        wait_until(has_place, KEPT_SECONDS, "the place is kept")
        assert figures(admin)["weft_scrub_passes_total"] == 0
        daemon.kill()
        daemon.flags = ("--scrub-rate", "1GiB", *daemon.flags[2:])
        daemon.start()
        told = wait_until(lambda: (f := figures(admin))["weft_scrub_passes_total"] == 1 and f, FOUND_SECONDS, "a pass")
        assert 8 * MIB < told["weft_scrub_read_bytes_total"] < stored - 8 * MIB
        # The next one reads everything.
        told = wait_until(lambda: (f := figures(admin))["weft_scrub_passes_total"] == 2 and f, FOUND_SECONDS, "another")
        assert told["weft_scrub_read_bytes_total"] > stored
        assert told["weft_scrub_findings_total"] == 0
        daemon.stop()


def test_a_rate_that_is_none_is_refused(own_daemon):
    for rate in ["10", "fast", "-1"]:
        answer = run("serve", "--data", own_daemon().data, f"--scrub-rate={rate}")
        assert (answer.returncode, answer.stdout) == (2, "")
        assert f'"{rate}" is no rate' in answer.stderr
