"""Disks that fail, hang and fill up under the real binary: what the client is told, and that nothing acknowledged is lost.

docs/faults.md has the same as a table.
"""

import contextlib
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from check import pattern
from conftest import client_for
from daemon import ACCESS_KEY, SECRET_KEY, wait_until
from faulty_disk import needs_fuse
from sigv4 import Signer
from wire import Closed, Raw, Response
from writers import BUCKET, load_until, new_writers, verify_all

pytestmark = needs_fuse

DISK_TIMEOUT = 1
# A late operation is noticed up to a quarter of the time-out later; a request may meet two of them in a row. The rest is
# for a busy machine.
ANSWER_SECONDS_MAX = 2 * 1.25 * DISK_TIMEOUT + 4
SMALL, LARGE, HUGE = pattern(4096, 1), pattern(200_000, 2), pattern(3 << 20, 3)
SEGMENTS = "*.seg"
# What bodies and logs are written in: neither headers, nor the zeroes that go ahead of them.
CONTENT = {"file": SEGMENTS, "start": 8192, "below": 1 << 20}


class Store:
    """A daemon on a faulty disk, with a bucket, asked over plain connections."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.raw = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY))
        client_for(daemon.endpoint).create_bucket(Bucket=BUCKET)

    def ask(self, method: str, key: str, body: bytes = b"", headers: dict | None = None) -> Response:
        return self.raw.request(method, f"/{BUCKET}/{key}", body, headers)

    def put(self, key: str, body: bytes) -> tuple[int, str]:
        return self.ask("PUT", key, body).refusal

    def get(self, key: str) -> tuple[int, bytes]:
        found = self.ask("GET", key)
        return found.status, found.body

    def warm(self, key: str, body: bytes) -> None:
        """Reads a small body over as many connections as reach every core: each keeps it in memory."""
        target = f"/{BUCKET}/{key}"
        with contextlib.ExitStack() as stack:
            for wire in [stack.enter_context(self.raw.connect()) for _ in range(4)]:
                assert wire.request("GET", target, self.raw.signed("GET", target)).body == body

    def health(self, name: str) -> int:
        return self.raw.request("GET", f"/-/{name}").status

    def restart(self) -> None:
        self.daemon.kill()
        self.daemon.start()
        assert "DAMAGE" not in self.daemon.log, self.daemon.log


OK = (200, "")
DISK_FAILED = (500, "InternalError")
READ_ONLY = (503, "ServiceUnavailable")
FULL = (507, "InsufficientStorage")


@pytest.fixture
def store(faulty_disk, own_daemon):
    flags = ("--cores", "2", "--disk-timeout", str(DISK_TIMEOUT))
    yield Store(own_daemon(*flags, capacity="256MiB", data=faulty_disk.data).start())
    # A process does not end before the kernel has what it asked the disk for.
    faulty_disk.clear()


def test_a_read_that_fails_fails_its_request_alone(store, faulty_disk):
    assert [store.put("large", LARGE), store.put("other", LARGE), store.put("cached", SMALL)] == [OK, OK, OK]
    store.warm("cached", SMALL)
    faulty_disk.fault("read", "EIO", file=SEGMENTS, times=1)
    assert store.ask("GET", "large").refusal == DISK_FAILED
    assert "read of" in store.daemon.log
    assert store.get("large") == (200, LARGE)
    faulty_disk.fault("read", "EIO", file=SEGMENTS)
    assert store.ask("GET", "other").refusal == DISK_FAILED
    # What needs no read goes on.
    assert store.ask("HEAD", "other").status == 200
    assert store.put("new", SMALL) == OK
    assert store.get("cached") == (200, SMALL)
    faulty_disk.clear()
    assert store.get("new") == (200, SMALL)
    assert store.get("other") == (200, LARGE)


def test_a_read_that_comes_up_short_fails_its_request(store, faulty_disk):
    assert store.put("key", LARGE) == OK
    faulty_disk.fault("read", "short", file=SEGMENTS, times=1)
    assert store.ask("GET", "key").refusal == DISK_FAILED
    assert "short read" in store.daemon.log
    assert store.get("key") == (200, LARGE)


def test_a_read_that_fails_in_the_middle_of_a_body_ends_the_connection(store, faulty_disk):
    assert store.put("huge", HUGE) == OK
    # Of a segment of 1 MiB, behind what the first reads fetch.
    faulty_disk.fault("read", "EIO", file=SEGMENTS, start=800 << 10)
    with pytest.raises(Closed):
        store.ask("GET", "huge")
    faulty_disk.clear()
    assert store.get("huge") == (200, HUGE)


@pytest.mark.parametrize("how", ["EIO", "short"])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_a_write_that_fails_fails_its_request_and_the_next_goes_elsewhere(store, faulty_disk, how, body):
    assert store.put("key", b"before") == OK
    faulty_disk.fault("write", how, **CONTENT, times=1)
    assert store.put("key", body) == DISK_FAILED
    # Of a short write io_uring is told by FUSE that it failed.
    assert "Input/output error" in store.daemon.log and "it takes no more" in store.daemon.log
    assert store.get("key") == (200, b"before")
    assert store.put("other", body) == OK
    store.restart()
    # The log has said that the failed one is void.
    assert store.get("key")[1] in (b"before", body)
    assert store.get("other") == (200, body)
    assert store.put("key", body) == OK


def test_a_sync_that_fails_is_never_acknowledged_and_never_tried_again(store, faulty_disk):
    assert store.put("key", b"before") == OK
    faulty_disk.fault("sync", "EIO", **CONTENT, times=1)
    assert store.put("key", SMALL) == DISK_FAILED
    assert store.get("key") == (200, b"before")
    # Without the next batch, which says that the failed one is void: it is old, or whole.
    faulty_disk.cut_power(7)
    store.daemon.kill()
    faulty_disk.restore_power()
    store.restart()
    assert store.get("key")[1] in (b"before", SMALL)
    # And with it. A core's first large body has a data segment made: the fault shall hit one that is in use.
    assert [store.put("key", b"again"), *(store.put("large", LARGE) for _ in range(4))] == [OK] * 5
    faulty_disk.wait_until_quiet()
    faulty_disk.fault("sync", "EIO", file=SEGMENTS, times=1)
    assert store.put("key", LARGE) == DISK_FAILED
    assert store.put("other", LARGE) == OK
    faulty_disk.cut_power(8)
    store.daemon.kill()
    faulty_disk.restore_power()
    store.restart()
    assert store.get("key") == (200, b"again")
    assert store.get("other") == (200, LARGE)


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_a_disk_that_fails_all_writes_makes_the_volume_read_only(store, faulty_disk, body):
    assert [store.put("small", SMALL), store.put("large", LARGE)] == [OK, OK]
    faulty_disk.fault("write", "EIO", file=SEGMENTS)
    answers = [DISK_FAILED]
    while answers[-1] == DISK_FAILED and len(answers) < 100:
        answers.append(store.put(f"key-{len(answers)}", body))
    assert answers[-1] == READ_ONLY, answers
    faulty_disk.clear()
    # It stays so, whatever becomes of the disk, until somebody looks after it and starts again.
    refused = store.ask("PUT", "key", body)
    assert refused.refusal == READ_ONLY
    assert b"nothing is written any more, only read" in refused.body
    assert store.ask("DELETE", "small").refusal == READ_ONLY
    assert [store.get("small"), store.get("large")] == [(200, SMALL), (200, LARGE)]
    assert store.health("ready") == 200
    assert store.daemon.log.count("READ-ONLY") == 1
    store.restart()
    assert [store.get("small"), store.get("large")] == [(200, SMALL), (200, LARGE)]
    assert store.put("key", body) == OK


@pytest.mark.parametrize("bound", ["room", "thin"])
def test_a_file_system_that_fills_up_before_its_time_is_a_full_volume(store, faulty_disk, bound):
    """`room`: preallocation fails. `thin`: it succeeds, and the writes fail."""
    faulty_disk.tell(f"{bound} {60 << 20}")
    stored = []
    while len(stored) < 100 and (answer := store.put(f"key-{len(stored)}", HUGE)) == OK:
        stored.append(f"key-{len(stored)}")
    assert answer == FULL and len(stored) > 5, (answer, len(stored))
    assert all(store.get(key) == (200, HUGE) for key in stored)
    for key in stored[::2]:
        assert store.ask("DELETE", key).status == 204
    wait_until(lambda: store.put("again", HUGE) == OK, 10, "room after deletes")
    faulty_disk.tell(f"{bound} {1 << 40}")
    wait_until(lambda: store.put("more", HUGE) == OK, 10, "room after the file system grew")
    store.restart()
    assert all(store.get(key) == (200, HUGE) for key in [*stored[1::2], "again", "more"])


def test_a_read_that_never_returns_fails_its_request_and_holds_up_no_other(store, faulty_disk):
    assert [store.put("stuck", LARGE), store.put("cached", SMALL)] == [OK, OK]
    store.warm("cached", SMALL)
    faulty_disk.fault("read", "hang", file=SEGMENTS)
    with ThreadPoolExecutor(4) as threads:
        begun = time.monotonic()
        stuck = [threads.submit(store.ask, "GET", "stuck") for _ in range(4)]
        wait_until(lambda: faulty_disk.hanging() >= 4, 10, "reads that hang")
        # Others are served meanwhile.
        assert store.get("cached") == (200, SMALL)
        assert store.put("new", SMALL) == OK
        assert store.health("live") == 200
        assert [answer.result().refusal for answer in stuck] == [DISK_FAILED] * 4
        took = time.monotonic() - begun
    assert DISK_TIMEOUT <= took < ANSWER_SECONDS_MAX
    assert "has not answered for 1 s" in store.daemon.log
    assert (store.health("ready"), store.health("live")) == (503, 200)
    faulty_disk.clear()
    wait_until(lambda: store.health("ready") == 200, 5, "ready when the disk answers again")
    assert store.get("stuck") == (200, LARGE)
    store.daemon.stop()


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_a_write_that_never_returns_fails_its_request_and_its_segment_is_left_alone(store, faulty_disk, body):
    assert store.put("key", b"before") == OK
    faulty_disk.fault("write", "hang", **CONTENT, times=1)
    begun = time.monotonic()
    assert store.put("key", body) == DISK_FAILED
    assert DISK_TIMEOUT <= time.monotonic() - begun < ANSWER_SECONDS_MAX
    assert store.health("ready") == 503
    # The next goes elsewhere, and what comes of the late write changes nothing.
    assert store.put("other", body) == OK
    churn = {f"churn-{index}": pattern(500_000, index) for index in range(40)}
    assert {store.put(key, churned) for key, churned in churn.items()} == {OK}
    assert faulty_disk.hanging() == 1
    faulty_disk.clear()
    wait_until(lambda: store.health("ready") == 200, 5, "ready when the disk answers again")
    assert store.get("key") == (200, b"before")
    for _ in range(2):
        assert store.get("other") == (200, body)
        assert all(store.get(key) == (200, churned) for key, churned in churn.items())
        store.restart()
    assert store.get("key") == (200, b"before")


def test_a_disk_that_is_only_slow_is_waited_for(store, faulty_disk):
    faulty_disk.fault("any", "hang=0.3", file=SEGMENTS, times=20)
    assert [store.put("small", SMALL), store.put("large", LARGE)] == [OK, OK]
    assert [store.get("small"), store.get("large")] == [(200, SMALL), (200, LARGE)]
    assert store.health("ready") == 200


def test_a_daemon_whose_disk_hangs_ends_when_told(store, faulty_disk):
    assert store.put("key", LARGE) == OK
    faulty_disk.fault("any", "hang", file=SEGMENTS)
    assert store.ask("GET", "key").refusal == DISK_FAILED
    begun = time.monotonic()
    store.daemon.process.terminate()
    wait_until(lambda: "has not returned" in store.daemon.log, 15, "the daemon's last word")
    assert time.monotonic() - begun < 15
    faulty_disk.clear()
    # Not 0: it could not tidy up. Nothing that was acknowledged hung on that.
    assert store.daemon.process.wait(10) == 1
    store.daemon.start()
    assert store.get("key") == (200, LARGE)


@pytest.mark.parametrize("how", ["EIO", "ENXIO"])
def test_a_disk_that_is_gone_leaves_a_daemon_that_says_so(store, faulty_disk, how):
    assert [store.put("cached", SMALL), store.put("large", LARGE)] == [OK, OK]
    store.warm("cached", SMALL)
    faulty_disk.fault("any", how)
    assert store.ask("GET", "large").refusal == DISK_FAILED
    answers = {store.put(f"key-{index}", [SMALL, LARGE][index % 2]) for index in range(40)}
    answers |= {store.ask("DELETE", "large").refusal for _ in range(40)}
    assert answers == {DISK_FAILED, READ_ONLY}
    assert store.get("cached") == (200, SMALL)
    assert store.health("live") == 200
    store.daemon.assert_alive()
    faulty_disk.clear()
    assert store.get("large") == (200, LARGE)
    store.restart()
    assert [store.get("cached"), store.get("large")] == [(200, SMALL), (200, LARGE)]


ROUNDS = int(os.environ.get("WEFT_FAULT_ROUNDS", "2"))


@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_acknowledged_changes_outlive_faults_of_every_kind(faulty_disk, own_daemon):
    """WEFT_FAULT_ROUNDS rounds of load with faults, each ended by a power cut. The seed is printed on failure."""
    seed = int(os.environ.get("WEFT_FAULT_SEED", time.time_ns() % 1_000_000))
    print(f"WEFT_FAULT_SEED={seed}")
    dice = random.Random(seed)
    daemon = own_daemon("--disk-timeout", "1", capacity="256MiB", data=faulty_disk.data).start()
    client_for(daemon.endpoint).create_bucket(Bucket=BUCKET)
    writers = new_writers(daemon, seed, disk_may_fail=True, goes_on=True)

    def fail_and_end() -> None:
        for _ in range(6):
            what = dice.choice(["read", "write", "write", "sync", "allocate"])
            how = dice.choice(["EIO", "EIO", "ENOSPC", "hang", "hang=1.5", "short"])
            faulty_disk.fault(what, how, file=SEGMENTS, times=dice.choice([1, 1, 3]))
            time.sleep(dice.uniform(0.0, 0.5))
        for writer in writers:
            writer.stop.set()
        faulty_disk.cut_power(dice.getrandbits(60))
        daemon.kill()
        faulty_disk.clear()
        faulty_disk.restore_power()

    for _ in range(ROUNDS):
        load_until(fail_and_end, daemon, writers, 0.3)
        wait_until(daemon.is_unlocked, 10, "the lock's end")
        daemon.start()
        assert "DAMAGE" not in daemon.log, daemon.log
        verify_all(writers)
        for writer in writers:
            writer.stop.clear()
    print(f"acknowledged: {sum(w.changes for w in writers)}, failed: {sum(w.failures for w in writers)}")
    assert sum(writer.changes for writer in writers) > 20 * ROUNDS, "too little load to prove anything"
    assert sum(writer.failures for writer in writers) > ROUNDS, "too few faults to prove anything"
