"""SIGKILL under a mixed write load: what was acknowledged is there, whole; what was in flight is old or new."""

import os
import random
import threading
import time
from dataclasses import dataclass, field

import pytest
from check import PART, etag, keys_of, md5, multipart_etag, pattern
from conftest import client_for
from daemon import ACCESS_KEY, SECRET_KEY, Daemon
from sigv4 import Signer, encode
from wire import Closed, Raw, path_of, xml, xml_text

ROUNDS = int(os.environ.get("WEFT_CRASH_ROUNDS", "3"))
WRITERS = 8
KEYS_PER_WRITER = 12
RESTART_SECONDS_MAX = 3.0
BUCKET = "crash"
SIZES = [0, 1, 500, 4096, 30_000, 65_536, 65_537, 200_000, 1_000_000, 3 << 20]


@dataclass(frozen=True)
class Version:
    """What a key holds: ETag and MD5 of its bytes. None stands for a key that is not there."""

    etag: str
    md5: str


@dataclass
class Writer:
    """One thread, one connection, and keys that no other writes. Knows what each key may hold."""

    raw: Raw
    name: int
    dice: random.Random
    acknowledged: dict[str, Version | None] = field(default_factory=dict)
    in_flight: tuple[str, Version | None] | None = None
    changes: int = 0
    failure: Exception | None = None

    def run(self) -> None:
        """Writes until the daemon is gone."""
        try:
            with self.raw.connect(timeout=30) as wire:
                while True:
                    self.change(wire)
        except (OSError, Closed):
            pass
        except Exception as error:  # noqa: BLE001 - shown by the test's thread
            self.failure = error

    def change(self, wire) -> None:
        key = f"w{self.name}/{self.dice.randrange(KEYS_PER_WRITER)}"
        kind = self.dice.choices(["put", "delete", "multipart", "copy"], [10, 3, 1, 1])[0]
        getattr(self, kind)(wire, key)
        self.in_flight = None
        self.changes += 1

    def ask(self, wire, method: str, target: str, body: bytes = b"", headers: dict | None = None):
        answer = wire.request(method, target, self.raw.signed(method, target, body, headers), body)
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
            for key in (f"w{self.name}/{i}" for i in range(KEYS_PER_WRITER)):
                found = self.look(wire, key)
                allowed = [self.acknowledged.get(key)]
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


def load_until_killed(daemon: Daemon, writers: list[Writer], seconds: float) -> None:
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    # Not a wait for something: how long the load runs before the kill is what the round is about.
    time.sleep(seconds)
    daemon.assert_alive()
    daemon.kill()
    for thread in threads:
        thread.join()
    for writer in writers:
        if writer.failure:
            raise writer.failure


@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_acknowledged_changes_outlive_sigkill(own_daemon):
    """WEFT_CRASH_ROUNDS kills, the number of cores now and then another one. The seed is printed on failure."""
    seed = int(os.environ.get("WEFT_CRASH_SEED", time.time_ns() % 1_000_000))
    print(f"WEFT_CRASH_SEED={seed}")
    dice = random.Random(seed)
    daemon = own_daemon(capacity="4GiB").start()
    raw = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY))
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    writers = [Writer(raw, name, random.Random(f"{seed}/{name}")) for name in range(WRITERS)]
    for round in range(ROUNDS):
        load_until_killed(daemon, writers, dice.uniform(0.3, 2.5))
        daemon.flags = ("--cores", dice.choice(["1", "2"]))
        daemon.start()
        assert daemon.ready_seconds < RESTART_SECONDS_MAX, f"round {round}: restart took {daemon.ready_seconds:.1f} s"
        listed = listing(raw)
        for writer in writers:
            writer.verify(listed)
        assert keys_of(s3, BUCKET) == sorted(k for w in writers for k, v in w.acknowledged.items() if v)
    assert sum(writer.changes for writer in writers) > 20 * ROUNDS, "too little load to prove anything"
    daemon.stop()


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
