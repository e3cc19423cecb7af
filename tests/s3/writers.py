"""Writers of a mixed load that know what each of their keys may hold, and hold the daemon to it after a crash."""

import random
import threading
import time
from dataclasses import dataclass, field

from check import PART, etag, md5, multipart_etag, pattern
from daemon import ACCESS_KEY, SECRET_KEY, Daemon, wait_until
from sigv4 import Signer, encode
from wire import Closed, Raw, path_of, xml, xml_text

WRITERS = 8
KEYS_PER_WRITER = 12
BUCKET = "crash"
SIZES = [0, 1, 500, 4096, 30_000, 65_536, 65_537, 200_000, 1_000_000, 3 << 20]


@dataclass(frozen=True)
class Version:
    """What a key holds: ETag and MD5 of its bytes. None stands for a key that is not there."""

    etag: str
    md5: str


class DiskFailed(Exception):
    """The daemon says that its disk failed."""


@dataclass
class Writer:
    """One thread, one connection, and keys that no other writes. Knows what each key may hold."""

    raw: Raw
    name: int
    dice: random.Random
    keys: int = KEYS_PER_WRITER
    acknowledged: dict[str, Version | None] = field(default_factory=dict)
    in_flight: tuple[str, Version | None] | None = None
    changes: int = 0
    put_bytes: int = 0
    failure: Exception | None = None
    # Whether a 5xx is to be expected, and what it does: end the load, as the daemon's end does, or nothing.
    disk_may_fail: bool = False
    goes_on: bool = False
    # What was asked for since the last change that was acknowledged, and failed: at the next start it may be true or not.
    failed: dict[str, list[Version | None]] = field(default_factory=dict)
    failures: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Writes until the daemon is gone, or it is told to stop."""
        try:
            while not self.stop.is_set():
                self.write_over_one_connection()
                if not self.goes_on:
                    break
        except Exception as error:  # noqa: BLE001 - shown by the test's thread
            self.failure = error

    def write_over_one_connection(self) -> None:
        try:
            with self.raw.connect(timeout=30) as wire:
                while not self.stop.is_set():
                    self.change(wire)
        except (OSError, Closed, DiskFailed):
            self.failures += 1
            if self.goes_on and self.in_flight:
                key, version = self.in_flight
                self.failed.setdefault(key, []).append(version)

    def change(self, wire) -> None:
        key = f"w{self.name}/{self.dice.randrange(self.keys)}"
        kind = self.dice.choices(["put", "delete", "multipart", "copy"], [10, 3, 1, 1])[0]
        self.in_flight = None
        getattr(self, kind)(wire, key)
        if self.in_flight:
            self.failed.pop(key, None)
        self.in_flight = None
        self.changes += 1

    def ask(self, wire, method: str, target: str, body: bytes = b"", headers: dict | None = None):
        answer = wire.request(method, target, self.raw.signed(method, target, body, headers), body)
        if self.disk_may_fail and answer.status in (500, 503, 507):
            raise DiskFailed
        assert answer.status in (200, 204), answer
        return answer

    def body(self, size: int) -> bytes:
        """Different bytes at each call: old content can never pass for new."""
        return pattern(64, self.dice.getrandbits(60))[: min(size, 64)] + pattern(
            max(0, size - 64), self.dice.randrange(4)
        )

    def put(self, wire, key: str) -> None:
        body = self.body(self.dice.choice(SIZES))
        version = Version(etag(body), md5(body))
        self.in_flight = (key, version)
        answer = self.ask(wire, "PUT", path_of(BUCKET, key), body)
        assert answer["etag"] == version.etag
        self.put_bytes += len(body)
        self.acknowledged[key] = version

    def delete(self, wire, key: str) -> None:
        self.in_flight = (key, None)
        self.ask(wire, "DELETE", path_of(BUCKET, key))
        self.acknowledged[key] = None

    def copy(self, wire, key: str) -> None:
        source = next((k for k, v in self.acknowledged.items() if v and k != key), None)
        if source is None:
            return
        digest = self.acknowledged[source].md5
        version = Version(f'"{digest}"', digest)
        self.in_flight = (key, version)
        self.ask(wire, "PUT", path_of(BUCKET, key), headers={"x-amz-copy-source": path_of(BUCKET, source)})
        self.acknowledged[key] = version

    def multipart(self, wire, key: str) -> None:
        bodies = [self.body(PART), self.body(self.dice.choice(SIZES[1:]))]
        target = path_of(BUCKET, key)
        upload = encode(xml_text(self.ask(wire, "POST", f"{target}?uploads").body, "UploadId"))
        parts = ""
        for number, body in enumerate(bodies, 1):
            tag = self.ask(wire, "PUT", f"{target}?partNumber={number}&uploadId={upload}", body)["etag"]
            parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
        version = Version(multipart_etag(bodies), md5(b"".join(bodies)))
        self.in_flight = (key, version)
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        self.ask(wire, "POST", f"{target}?uploadId={upload}", document)
        self.acknowledged[key] = version

    def verify(self, listed: dict[str, str]) -> None:
        """Holds what the daemon has against what it promised, and takes over what was in flight."""
        with self.raw.connect(timeout=30) as wire:
            for key in (f"w{self.name}/{i}" for i in range(self.keys)):
                found = self.look(wire, key)
                allowed = [self.acknowledged.get(key), *self.failed.pop(key, [])]
                if self.in_flight and self.in_flight[0] == key:
                    allowed.append(self.in_flight[1])
                assert found in allowed, f"{key}: has {found}, may have {allowed}"
                assert listed.get(key) == (found.etag if found else None), f"{key}: LIST and GET disagree"
                self.acknowledged[key] = found
        self.in_flight = None

    def look(self, wire, key: str) -> Version | None:
        target = path_of(BUCKET, key)
        got = wire.request("GET", target, self.raw.signed("GET", target))
        head = wire.request("HEAD", target, self.raw.signed("HEAD", target))
        assert head.status == got.status, f"{key}: HEAD and GET disagree"
        if got.status == 404:
            return None
        assert got.status == 200, got
        assert (head["etag"], int(head["content-length"])) == (got["etag"], len(got.body))
        return Version(got["etag"], md5(got.body))


def listing(raw: Raw) -> dict[str, str]:
    entries = xml(raw.request("GET", f"/{BUCKET}?list-type=2").body).iterfind("Contents")
    return {entry.findtext("Key"): entry.findtext("ETag") for entry in entries}


def new_writers(daemon: Daemon, seed: int, **options) -> list[Writer]:
    raw = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY))
    return [Writer(raw, name, random.Random(f"{seed}/{name}"), **options) for name in range(WRITERS)]


def load_until(end, daemon: Daemon, writers: list[Writer], seconds: float, is_enough=lambda: True) -> None:
    """Has all writers write for so long, and until it is enough; then `end()` is called, which is to end the daemon."""
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    # Not a wait for something: how long the load runs before the crash is what the round is about.
    time.sleep(seconds)
    wait_until(is_enough, 60, "enough load")
    daemon.assert_alive()
    end()
    for thread in threads:
        thread.join()
    for writer in writers:
        if writer.failure:
            raise writer.failure


def verify_all(writers: list[Writer]) -> None:
    """Every key has what its writer may find there, and is listed so. Uploads that the crash interrupted are ended."""
    listed = listing(writers[0].raw)
    for writer in writers:
        writer.verify(listed)
    assert sorted(listed) == sorted(key for w in writers for key, version in w.acknowledged.items() if version)
    end_uploads(writers[0].raw)


def end_uploads(raw: Raw) -> None:
    for upload in xml(raw.request("GET", f"/{BUCKET}?uploads").body).iterfind("Upload"):
        key, name = upload.findtext("Key"), encode(upload.findtext("UploadId"))
        answer = raw.request("DELETE", f"{path_of(BUCKET, key)}?uploadId={name}")
        assert answer.status == 204, answer
