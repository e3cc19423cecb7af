"""The weft binary under test: start it, wait until it is ready, stop or kill it."""

import fcntl
import http.client
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("WEFT_BINARY", ROOT / "target/release/weft"))
# Not a temporary directory of the system: that is often tmpfs, which has no O_DIRECT.
DATA_ROOT = ROOT / "target/test-data"
ACCESS_KEY = os.environ.get("WEFT_ACCESS_KEY", "rustfsadmin")
SECRET_KEY = os.environ.get("WEFT_SECRET_KEY", "rustfssecret")
DOMAIN = "s3.weft.test"
READY_SECONDS = 20.0
# The daemon has 10 s to finish what is in flight.
STOP_SECONDS = 20.0
POLL_SECONDS = 0.01

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
# Below the ephemeral range, apart for each worker: the daemon's sockets would share a port without a word.
_ports = itertools.cycle(range(20000 + _worker % 20 * 500 + os.getpid() % 250, 20500 + _worker % 20 * 500))
_names = itertools.count()


def free_port() -> int:
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("unreachable: the range cycles")


def new_data_dir() -> Path:
    path = DATA_ROOT / f"{os.getpid()}-{next(_names)}"
    path.mkdir(parents=True)
    return path


def wait_until(condition, seconds: float, what: str):
    """Polls until `condition()` is true and returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(POLL_SECONDS)
    return value


class Daemon:
    """One data directory and the process that serves it, restartable."""

    def __init__(
        self, *flags: str, capacity: str = "2GiB", data: Path | None = None, descriptors: int | None = None
    ):
        self.flags = flags
        self.descriptors = descriptors
        self.capacity = capacity
        self.data = data or new_data_dir()
        self.log_path = DATA_ROOT / f"{os.getpid()}-{next(_names)}.log"
        self.port = free_port()
        self.process: subprocess.Popen | None = None
        self.told_before = 0
        self.ready_seconds = 0.0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def command(self) -> list[str]:
        listen = f"127.0.0.1:{self.port}"
        base = [str(BINARY), "serve", "--data", str(self.data), "--listen", listen, "--capacity", self.capacity]
        limited = ["prlimit", f"--nofile={self.descriptors}"] if self.descriptors else []
        return [*limited, *base, "--domain", DOMAIN, *self.flags]

    def spawn(self) -> None:
        """Begins to start."""
        with self.log_path.open("ab") as log:
            self.told_before = log.tell()
            environment = os.environ | {"WEFT_ACCESS_KEY": ACCESS_KEY, "WEFT_SECRET_KEY": SECRET_KEY}
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=environment)

    def start(self) -> "Daemon":
        """Returns when the daemon says that it is ready, to a client and in the whole of its report."""
        started = time.monotonic()
        self.spawn()
        wait_until(self.is_ready, READY_SECONDS, f"ready on port {self.port}")
        self.ready_seconds = time.monotonic() - started
        return self

    def is_ready(self) -> bool:
        code = self.process.poll()
        assert code is None, f"weft ended with {code} while starting:\n{self.log}"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/-/ready")
            if connection.getresponse().status != 200:
                return False
        except OSError:
            return False
        finally:
            connection.close()
        return b"listening on" in self.log_path.read_bytes()[self.told_before :]

    def is_unlocked(self) -> bool:
        """Whether the data directory may be taken: the kernel lets go of it a moment after a killed process's end."""
        try:
            with (self.data / "weft.lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False

    def assert_alive(self) -> None:
        assert self.process.poll() is None, f"weft ended with {self.process.returncode}:\n{self.log}"

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        code = self.terminate()
        assert code == 0, f"weft ended with {code} after SIGTERM:\n{self.log}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def assert_clean(self) -> str:
        """`weft check` finds nothing wrong with what the stopped daemon left; what it says."""
        checked = subprocess.run([str(BINARY), "check", str(self.data)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        return checked.stdout

    def discard(self) -> None:
        """Ends the process however it is, and removes its data."""
        if self.process and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        self.log_path.unlink(missing_ok=True)
