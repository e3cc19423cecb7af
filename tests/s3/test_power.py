"""Power cuts under load, on a file system that forgets what was not synced: what was acknowledged is there, whole."""

import os
import random
import time

import pytest
from conftest import client_for
from daemon import wait_until
from faulty_disk import needs_fuse
from writers import BUCKET, load_until, new_writers, verify_all

CUTS = int(os.environ.get("WEFT_POWER_CUTS", "5"))

pytestmark = needs_fuse


@pytest.mark.timeout(120 + 20 * CUTS)
def test_acknowledged_changes_outlive_power_cuts(faulty_disk, own_daemon):
    """WEFT_POWER_CUTS cuts, some of them while the daemon starts. The seed is printed on failure."""
    seed = int(os.environ.get("WEFT_POWER_SEED", time.time_ns() % 1_000_000))
    print(f"WEFT_POWER_SEED={seed}")
    dice = random.Random(seed)
    # Small, so that segments are cleaned and written anew all the time.
    daemon = own_daemon(capacity="256MiB", data=faulty_disk.data).start()
    client_for(daemon.endpoint).create_bucket(Bucket=BUCKET)
    writers = new_writers(daemon, seed, disk_may_fail=True)
    toll = {"kept": 0, "lost": 0, "torn": 0}

    def cut() -> None:
        for fate, count in faulty_disk.cut_power(dice.getrandbits(60)).items():
            toll[fate] += count
        daemon.kill()
        faulty_disk.restore_power()
        # A machine without power keeps no lock.
        wait_until(daemon.is_unlocked, 10, "the lock's end")

    for _ in range(CUTS):
        load_until(cut, daemon, writers, dice.uniform(0.1, 1.0))
        daemon.flags = ("--cores", dice.choice(["1", "2"]))
        while dice.random() < 0.3:
            # While it recovers, or writes its superblock.
            daemon.spawn()
            time.sleep(dice.uniform(0.0, 0.1))
            cut()
        daemon.start()
        assert "DAMAGE" not in daemon.log, daemon.log
        verify_all(writers)
    print(f"writes that were not synced: {toll}; changes acknowledged: {sum(w.changes for w in writers)}")
    assert sum(w.changes for w in writers) > 20 * CUTS, "too little load to prove anything"
    assert min(toll.values()) > 0, f"too gentle: {toll}"
    daemon.stop()
