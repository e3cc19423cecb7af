"""A mounted file system that loses, fails, hangs and fills up on command (faulty_disk/, an example of the crate)."""

import functools
import os
import subprocess
import time
from pathlib import Path

import pytest
from daemon import ROOT, new_data_dir, wait_until

PROGRAM = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/examples/faulty-disk"
# What a test without it is told, in one place: a machine that cannot mount is no failure of ours.
needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0, reason="needs root and /dev/fuse to mount a faulty disk"
)


class FaultyDisk:
    """The mount and its process; `data` lies on it."""

    def __init__(self):
        self.mountpoint = new_data_dir()
        self.process = subprocess.Popen(
            [program(), self.mountpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == "mounted"
        self.data = self.mountpoint / "data"

    def tell(self, command: str) -> str:
        """Gives a command (faulty_disk/main.rs lists them); returns what the answer says behind `ok`."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        word, _, told = self.process.stdout.readline().strip().partition(" ")
        assert word == "ok", f"the faulty disk says: {word} {told}"
        return told

    def fault(self, what: str, how: str, **options) -> None:
        """`fault("read", "EIO", file="*.seg", start=4096, to=8192, times=1)`"""
        if "start" in options:
            options["from"] = options.pop("start")
        self.tell(" ".join(["fault", what, how, *(f"{key}={value}" for key, value in options.items())]))

    def clear(self) -> None:
        self.tell("clear")

    def hanging(self) -> int:
        return int(self.tell("hanging"))

    def seen(self, kind: str) -> int:
        """Requests so far: reads, writes, syncs, allocations or others."""
        return int(dict(word.split("=") for word in self.tell("seen").split())[kind])

    def wait_until_quiet(self) -> None:
        """Until nothing is asked for by itself, as a spare segment is made ready: the next fault hits what is meant."""
        seen = [self.tell("seen")]

        def is_quiet() -> bool:
            # Not a wait for something: that nothing came in a while is what is asked.
            time.sleep(0.1)
            seen.append(self.tell("seen"))
            return seen[-1] == seen[-2]

        wait_until(is_quiet, 10, "a quiet disk")

    def cut_power(self, seed: int) -> dict[str, int]:
        """Everything fails from now on; returns how many writes were kept, lost and torn."""
        return {key: int(value) for key, value in (word.split("=") for word in self.tell(f"cut {seed}").split())}

    def restore_power(self) -> None:
        self.tell("restore")

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(10) == 0
        self.mountpoint.rmdir()


@functools.cache
def program() -> Path:
    """WEFT_FAULTY_DISK, or the example as it is now."""
    if "WEFT_FAULTY_DISK" in os.environ:
        return Path(os.environ["WEFT_FAULTY_DISK"])
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--example", "faulty-disk"], cwd=ROOT, check=True)
    return PROGRAM
