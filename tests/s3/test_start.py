"""A start that takes long, on a slow disk: what the daemon answers meanwhile, and what it tells of its progress."""

import os
import pty
import re
import select
import subprocess
import threading

import pytest
from check import pattern
from conftest import client_for
from daemon import ACCESS_KEY, SECRET_KEY, wait_until
from faulty_disk import needs_fuse
from sigv4 import Signer
from wire import Raw

pytestmark = needs_fuse

BUCKET, OBJECTS, BODY_BYTES = "kept", 400, 60_000
SEGMENTS = "*.seg"
# The logs are some 24 MB in 24 segments, and each is read twice: once for its first batch, once whole.
READ_SECONDS = 0.25


@pytest.fixture
def stopped(faulty_disk, own_daemon):
    """A daemon that was killed with a long tail of its log behind it."""
    daemon = own_daemon("--cores", "2", capacity="256MiB", data=faulty_disk.data).start()
    client_for(daemon.endpoint).create_bucket(Bucket=BUCKET)
    raw = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY))
    for index in range(OBJECTS):
        assert raw.request("PUT", f"/{BUCKET}/{index}", pattern(BODY_BYTES, index)).status == 200
    assert "recovering" not in daemon.log, "a start of nothing tells no progress"
    daemon.kill()
    wait_until(daemon.is_unlocked, 10, "the lock's end")
    yield daemon
    # A process does not end before the kernel has what it asked the disk for.
    faulty_disk.clear()


def health(raw: Raw, name: str) -> tuple[int, str]:
    answer = raw.request("GET", f"/-/{name}")
    return answer.status, answer.body.decode()


def answers(raw: Raw) -> bool:
    try:
        return raw.request("GET", "/-/live").status == 200
    except OSError:
        return False


def test_a_long_recovery_is_live_not_ready_and_told(stopped, faulty_disk):
    daemon, raw = stopped, Raw(stopped.endpoint, Signer(ACCESS_KEY, SECRET_KEY))
    faulty_disk.fault("read", f"hang={READ_SECONDS}", file=SEGMENTS)
    daemon.spawn()
    wait_until(lambda: answers(raw), 5, "a port that answers")
    # What comes meanwhile is told to come again, and a client of the usual kind does.
    refused = raw.request("GET", f"/{BUCKET}/7")
    assert refused.refusal == (503, "ServiceUnavailable") and refused["retry-after"] == "1"
    patient = client_for(daemon.endpoint, retries={"mode": "standard", "total_max_attempts": 12})
    answered = {}
    asking = threading.Thread(target=lambda: answered.update(patient.get_object(Bucket=BUCKET, Key="7")))
    asking.start()
    told = []
    while (ready := health(raw, "ready"))[0] != 200:
        assert ready[0] == 503 and ready[1].startswith("not ready: recovering: "), ready
        assert health(raw, "live") == (200, "ok\n")
        daemon.assert_alive()
        told.append(ready[1])
    percents = [int(found[1]) for text in told if (found := re.search(r"(\d+) % of the log read", text))]
    assert percents == sorted(percents) and len(set(percents)) > 5, told[:: len(told) // 10 + 1]
    assert 0 <= percents[0] < percents[-1] <= 100
    wait_until(daemon.is_ready, 5, "the whole report")
    lines = daemon.log[daemon.told_before :].splitlines()
    assert any(re.fullmatch(r"weft: recovering: \d+ % of the .*", line) for line in lines), lines
    faulty_disk.clear()
    asking.join(60)
    assert answered["Body"].read() == pattern(BODY_BYTES, 7)
    assert answered["ResponseMetadata"]["RetryAttempts"] > 0
    assert raw.request("GET", f"/{BUCKET}/{OBJECTS - 1}").body == pattern(BODY_BYTES, OBJECTS - 1)
    daemon.stop()


def test_a_terminal_is_drawn_a_bar(stopped, faulty_disk):
    faulty_disk.fault("read", f"hang={READ_SECONDS}", file=SEGMENTS)
    ours, theirs = pty.openpty()
    environment = os.environ | {"WEFT_ACCESS_KEY": ACCESS_KEY, "WEFT_SECRET_KEY": SECRET_KEY, "TERM": "xterm"}
    with stopped.log_path.open("ab") as log:
        stopped.told_before = log.tell()
        stopped.process = subprocess.Popen(stopped.command(), stdout=log, stderr=theirs, env=environment)
    os.close(theirs)
    drawn = b""

    def is_drawn() -> bool:
        nonlocal drawn
        if select.select([ours], [], [], 0)[0]:
            drawn += os.read(ours, 4096)
        return re.search(rb"recovering: [1-9]\d* % of the log read", drawn) is not None

    wait_until(is_drawn, 20, "a bar with percents")
    faulty_disk.clear()
    wait_until(stopped.is_ready, 20, "ready")
    os.close(ours)
    stopped.stop()


@pytest.mark.parametrize("file", ["*", SEGMENTS], ids=["everything", "segments"])
def test_a_start_on_a_disk_that_hangs_ends_with_words(stopped, faulty_disk, file):
    stopped.flags = (*stopped.flags, "--disk-timeout", "1")
    faulty_disk.fault("any", "hang", file=file)
    stopped.spawn()
    wait_until(lambda: "has not answered for 1 s" in stopped.log, 10, "the daemon's last word")
    faulty_disk.clear()
    assert stopped.process.wait(10) == 1
    assert "panicked" not in stopped.log and "dmesg" in stopped.log
    stopped.start()
    stopped.stop()
