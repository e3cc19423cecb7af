"""What --admin-listen serves: figures that are right after known operations, as docs/metrics.md has them."""

import contextlib
import os
import random
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from botocore.exceptions import ClientError
from check import PART, new_upload, pattern, put_part, refused
from conftest import client_for
from daemon import ROOT, Daemon, free_port, wait_until
from prometheus_client.parser import text_string_to_metric_families
from wire import Wire

MIB = 1 << 20
BUCKET = "metrics"
CORES = 2
# Of the admin listener, those included that only health is told.
ADMIN_CONNECTIONS = 20


class Figures:
    """One scrape. `figures["weft_x", {"label": "value"}]` is the sum of the samples that have these labels."""

    def __init__(self, text: str):
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def __getitem__(self, wanted) -> float:
        name, labels = wanted if isinstance(wanted, tuple) else (wanted, {})
        return sum(value for _, value in self.of(name, **labels))

    def of(self, name: str, **labels) -> list[tuple[dict, float]]:
        fits = [s for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        return [(sample.labels, sample.value) for sample in fits]

    def by(self, name: str, label: str) -> dict[str, float]:
        return {labels[label]: value for labels, value in self.of(name)}


class Admin:
    """A daemon's admin listener."""

    def __init__(self, daemon: Daemon, port: int):
        self.daemon = daemon
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def scrape(self) -> Figures:
        answer = requests.get(f"{self.url}/metrics", timeout=10)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return Figures(answer.text)


@pytest.fixture
def admin(own_daemon):
    """Makes a daemon with an admin listener, started."""

    def make(**options) -> Admin:
        port = free_port()
        daemon = own_daemon("--cores", str(CORES), "--admin-listen", f"127.0.0.1:{port}", **options)
        return Admin(daemon.start(), port)

    return make


def documented() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each name in the table of docs/metrics.md."""
    rows = re.findall(r"^\| `(weft_\w+)` \| (\w+) \|([^|]*)\|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def load(s3) -> None:
    """Something of everything that has labels."""
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="small", Body=b"x" * 4096)
    s3.put_object(Bucket=BUCKET, Key="large", Body=pattern(MIB))
    s3.get_object(Bucket=BUCKET, Key="large")["Body"].read()


def test_what_is_documented_is_what_is_served(admin):
    listener = admin()
    load(client_for(listener.daemon.endpoint))
    figures = listener.scrape()
    served = {}
    for name, family in figures.families.items():
        # The parser takes the ending of counters away.
        name = f"{name}_total" if family.type == "counter" else name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        served[name] = (family.type, labels)
        assert family.documentation and family.samples, name
    assert served == documented()
    for labelled, values in [
        ("weft_segments", {"free", "open_log", "open_data", "log", "data", "retiring", "unusable"}),
        ("weft_requests_unheard_total", {"bad_head", "late_head", "no_room", "starting"}),
    ]:
        text = (ROOT / "docs/metrics.md").read_text()
        [(label, found)] = {(next(iter(l)), frozenset(figures.by(labelled, next(iter(l))))) for l, _ in figures.of(labelled)}
        assert found == values and all(f"`{value}`" in text for value in found), label


def test_requests_are_counted_by_operation_and_code(admin):
    listener = admin()
    s3 = client_for(listener.daemon.endpoint)
    begun = time.monotonic()
    s3.create_bucket(Bucket=BUCKET)
    bodies = [pattern(size) for size in (0, 1, 4096, 65_536, 65_537, 3 * MIB)]
    for number, body in enumerate(bodies):
        s3.put_object(Bucket=BUCKET, Key=f"k{number}", Body=body)
    for number, body in enumerate(bodies):
        assert s3.get_object(Bucket=BUCKET, Key=f"k{number}")["Body"].read() == body
        s3.head_object(Bucket=BUCKET, Key=f"k{number}")
    for _ in range(4):
        s3.get_object(Bucket=BUCKET, Key="k2", Range="bytes=5-14")["Body"].read()
    for _ in range(3):
        with refused(404, "NoSuchKey"):
            s3.get_object(Bucket=BUCKET, Key="missing")
    with refused(403, "SignatureDoesNotMatch"):
        client_for(listener.daemon.endpoint, secret_key="wrong-secret").list_buckets()
    with refused(501, "NotImplemented"):
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.list_objects_v2(Bucket=BUCKET)
    s3.delete_object(Bucket=BUCKET, Key="k0")
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "k1"}]})
    elapsed = time.monotonic() - begun
    figures = listener.scrape()
    counts = {(labels["operation"], labels["code"]): value for labels, value in figures.of("weft_requests_total")}
    assert counts == {
        ("CreateBucket", "200"): 1,
        ("PutObject", "200"): 6,
        ("GetObject", "200"): 6,
        ("GetObject", "206"): 4,
        ("GetObject", "404"): 3,
        ("HeadObject", "200"): 6,
        ("Unknown", "403"): 1,
        ("BucketSetting", "501"): 1,
        ("ListObjectsV2", "200"): 1,
        ("DeleteObject", "204"): 1,
        ("DeleteObjects", "200"): 1,
    }
    body_bytes = sum(map(len, bodies))
    error_bytes = figures["weft_response_body_bytes_total", {"operation": "GetObject"}] - body_bytes - 40
    assert 3 * 100 < error_bytes < 3 * 1000, "three documents that say NoSuchKey"
    assert figures["weft_response_body_bytes_total", {"operation": "HeadObject"}] == 0
    # boto3 frames bodies in aws-chunked over HTTPS alone.
    assert figures["weft_request_body_bytes_total", {"operation": "PutObject"}] == body_bytes
    assert figures["weft_accepted_body_bytes_total"] == body_bytes
    assert figures["weft_disk_written_bytes_total"] > body_bytes
    assert figures["weft_disk_read_bytes_total"] > 3 * MIB
    for operation in {operation for operation, _ in counts}:
        check_histogram(figures, "weft_request_seconds", operation=operation)
        answered = sum(value for (of, _), value in counts.items() if of == operation)
        assert figures["weft_request_seconds_count", {"operation": operation}] == answered
    assert 0 < figures["weft_request_seconds_sum"] < elapsed
    assert figures["weft_objects"] == 4 and figures["weft_buckets"] == 1
    # One connection sent all of it, and one more the request with the wrong signature.
    assert figures["weft_connections_accepted_total"] >= 2 and figures["weft_connections"] >= 1


def check_histogram(figures: Figures, name: str, **labels) -> None:
    buckets = [(float(of["le"]), value) for of, value in figures.of(f"{name}_bucket", **labels)]
    assert buckets == sorted(buckets) and buckets[-1][0] == float("inf")
    counts = [value for _, value in buckets]
    assert counts == sorted(counts), "buckets are cumulative"
    assert counts[-1] == figures[f"{name}_count", labels] > 0
    # The sum lies between what the buckets' lower and upper bounds make it.
    lower = upper = below = previous = 0.0
    for bound, value in buckets:
        lower += (value - previous) * below
        upper += (value - previous) * bound if value > previous else 0
        below, previous = bound, value
    assert lower <= figures[f"{name}_sum", labels] <= upper


def test_group_commits_and_syncs_are_counted(admin):
    listener = admin()
    s3 = client_for(listener.daemon.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    before = listener.scrape()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: s3.put_object(Bucket=BUCKET, Key=f"k{n}", Body=b"x" * 4096), range(200)))
    for number in range(5):
        s3.put_object(Bucket=BUCKET, Key=f"large{number}", Body=pattern(300_000))
    after = listener.scrape()

    def rise(name, **labels):
        return after[name, labels] - before[name, labels]

    assert rise("weft_batch_records_sum") == 205
    batches = rise("weft_batch_records_count")
    assert 5 < batches <= 205
    assert rise("weft_batch_bytes_count") == rise("weft_batch_seconds_count") == batches
    assert rise("weft_disk_syncs_total", of="log") == batches
    # What does not lie in a batch are five bodies of 300,000 bytes, in blocks, and headers of segments.
    assert rise("weft_batch_bytes_sum") + 5 * 300_000 < rise("weft_disk_written_bytes_total")
    assert rise("weft_disk_syncs_total", of="data") == 5
    for name in ["weft_batch_records", "weft_batch_bytes", "weft_batch_seconds"]:
        check_histogram(after, name)
    assert after["weft_commit_queue_items"] == after["weft_commit_queue_bytes"] == 0
    busy = after.by("weft_core_busy_seconds_total", "core")
    assert busy.keys() == {"0", "1"}
    assert all(0 < busy[core] - was < 60 for core, was in before.by("weft_core_busy_seconds_total", "core").items())
    # About half of the keys belong to the core that does not have the connection.
    assert rise("weft_messages_received_total") > 100


def test_the_cache_counts_what_it_knew(admin):
    listener = admin()
    s3 = client_for(listener.daemon.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x" * 4096)
    before = listener.scrape()
    assert before["weft_cache_entries"] == 0
    for _ in range(10):
        s3.get_object(Bucket=BUCKET, Key="k")["Body"].read()
    after = listener.scrape()
    # One connection, so one core asks.
    assert after["weft_cache_lookups_total", {"result": "miss"}] - before["weft_cache_lookups_total", {"result": "miss"}] == 1
    assert after["weft_cache_lookups_total", {"result": "hit"}] == 9
    assert after["weft_cache_entries"] >= 1 and after["weft_cache_bytes"] > 4096


def test_unfinished_uploads_are_seen_until_they_end_and_after_a_restart(admin):
    listener = admin()

    def uploads() -> tuple[float, float, float]:
        figures = listener.scrape()
        return (figures["weft_uploads"], figures["weft_upload_parts"], figures["weft_upload_part_bytes"])

    s3 = client_for(listener.daemon.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    keys = ["completed", "aborted", "left"]
    ids = {key: new_upload(s3, BUCKET, key) for key in keys}
    assert uploads() == (3, 0, 0)
    parts = {key: [put_part(s3, BUCKET, key, ids[key], n, pattern(size)) for n, size in ((1, PART), (2, 1000))] for key in keys}
    assert uploads() == (3, 6, 3 * (PART + 1000))
    # The same number again takes the place of what was there.
    put_part(s3, BUCKET, "left", ids["left"], 2, pattern(70_000))
    assert uploads() == (3, 6, 3 * PART + 2000 + 70_000)
    s3.abort_multipart_upload(Bucket=BUCKET, Key="aborted", UploadId=ids["aborted"])
    s3.complete_multipart_upload(
        Bucket=BUCKET, Key="completed", UploadId=ids["completed"], MultipartUpload={"Parts": parts["completed"]}
    )
    assert uploads() == (1, 2, PART + 70_000)
    listener.daemon.kill()
    listener.daemon.start()
    assert uploads() == (1, 2, PART + 70_000)
    figures = listener.scrape()
    assert figures["weft_objects"] == 1
    assert figures.by("weft_recovered", "what")["objects"] == figures.by("weft_recovered", "what")["uploads"] == 1
    assert figures.by("weft_recovered", "what")["records"] >= 10
    assert 0 < figures["weft_recovery_seconds"] < listener.daemon.ready_seconds
    client_for(listener.daemon.endpoint).abort_multipart_upload(Bucket=BUCKET, Key="left", UploadId=ids["left"])
    assert uploads() == (0, 0, 0)


@pytest.mark.parametrize("size", [4096, MIB], ids=["in its record", "in blocks"])
def test_a_damaged_body_raises_the_count_of_checksum_errors(admin, size):
    listener = admin()
    s3 = client_for(listener.daemon.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    for key, seed in [("damaged", 1), ("whole", 2)]:
        s3.put_object(Bucket=BUCKET, Key=key, Body=pattern(size, seed))
    assert listener.scrape()["weft_checksum_errors_total"] == 0
    damage_on_disk(listener.daemon, pattern(size, 1)[-2000:-1000])
    for _ in range(2):
        # The first block is read before the head is sent, the last one of a large body behind it.
        with pytest.raises((ClientError, Exception)):
            s3.get_object(Bucket=BUCKET, Key="damaged")["Body"].read()
    assert s3.get_object(Bucket=BUCKET, Key="whole")["Body"].read() == pattern(size, 2)
    figures = listener.scrape()
    assert figures["weft_checksum_errors_total"] == 2
    assert figures["weft_disk_errors_total"] == 0
    failed = figures["weft_requests_total", {"code": "500"}] + figures["weft_responses_unfinished_total"]
    assert failed == 2


def damage_on_disk(daemon: Daemon, where: bytes) -> None:
    """Changes a byte of the only place that holds `where`. The daemon has no page cache in between."""
    found = 0
    for path in sorted((daemon.data / "segments").iterdir()):
        at = path.read_bytes().find(where)
        if at >= 0:
            with path.open("r+b") as segment:
                segment.seek(at)
                segment.write(bytes([where[0] ^ 1]))
                segment.flush()
            found += 1
    assert found == 1


def test_a_full_volume_is_told_and_so_is_room(admin):
    listener = admin(capacity="256MiB")
    daemon = listener.daemon
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    figures = listener.scrape()
    assert figures["weft_capacity_bytes"] == 256 * MIB and figures["weft_full"] == 0
    body, count = pattern(2 * MIB), 0
    with pytest.raises(ClientError) as full:
        for count in range(200):
            s3.put_object(Bucket=BUCKET, Key=f"k{count}", Body=body)
    assert full.value.response["ResponseMetadata"]["HTTPStatusCode"] == 507
    figures = listener.scrape()
    assert figures["weft_full"] == 1
    assert figures["weft_requests_total", {"operation": "PutObject", "code": "507"}] == 1
    assert figures["weft_objects"] == count
    assert count * len(body) < figures["weft_live_bytes"] < count * len(body) * 1.01 + MIB
    segments = figures.by("weft_segments", "state")
    assert sum(segments.values()) * MIB == 256 * MIB
    assert daemon.log.count("the volume is full") == 1 and "has room again" not in daemon.log
    for number in range(count // 2):
        s3.delete_object(Bucket=BUCKET, Key=f"k{number}")

    def takes_writes() -> bool:
        with contextlib.suppress(ClientError):
            s3.put_object(Bucket=BUCKET, Key="again", Body=body)
            return True
        return False

    wait_until(takes_writes, 10, "room")
    wait_until(lambda: "weft: the volume has room again" in daemon.log, 10, "the word of it")
    figures = listener.scrape()
    assert figures["weft_full"] == 0 and daemon.log.count("the volume is full") == 1


def test_cleaning_is_counted(admin):
    listener = admin(capacity="256MiB")
    s3 = client_for(listener.daemon.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    body = pattern(900_000)

    dice = random.Random(1)

    def put(number: int) -> None:
        s3.put_object(Bucket=BUCKET, Key=f"k{number}", Body=body)

    for number in range(180):
        put(number)

    # At random, so that of each segment something stays alive: it has to be moved.
    def has_moved() -> bool:
        for _ in range(30):
            put(dice.randrange(180))
        return listener.scrape()["weft_clean_moved_bytes_total"] > 0

    wait_until(has_moved, 60, "a move")
    figures = listener.scrape()
    assert figures["weft_clean_rounds_total"] > 0 and figures["weft_clean_moved_entries_total"] > 0
    assert figures["weft_disk_written_bytes_total"] > figures["weft_accepted_body_bytes_total"]
    assert 0 <= figures["weft_shortage_ratio"] <= 1


def test_the_index_on_disk_is_counted(admin):
    listener = admin(capacity="256MiB")
    s3 = client_for(listener.daemon.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    checkpoints = ("weft_index_write_seconds_count", {"by": "checkpoint"})
    figures = listener.scrape()
    assert figures["weft_index_runs"] == figures[checkpoints] == figures["weft_index_run_bytes"] == 0
    before = figures["weft_index_table_bytes"]
    body = pattern(60_000)

    # Small bodies lie in the log, and no log is freed before the index on disk has what it says.
    def is_written() -> bool:
        for number in range(200):
            s3.put_object(Bucket=BUCKET, Key=f"k{number}", Body=body)
        return listener.scrape()[checkpoints] >= CORES

    assert not is_written()
    figures = listener.scrape()
    assert figures["weft_index_table_bytes"] > before
    assert figures["weft_index_log_tail_bytes"] > 200 * len(body)
    wait_until(is_written, 120, "a checkpoint of each core")
    figures = listener.scrape()
    runs = figures.by("weft_index_runs", "core")
    assert len(runs) == CORES and sum(runs.values()) >= 1
    assert figures["weft_index_run_entries"] >= 200
    assert figures["weft_index_written_bytes_total", {"by": "checkpoint"}] >= figures["weft_index_run_bytes"] > 0
    assert figures["weft_index_write_seconds_sum", {"by": "checkpoint"}] > 0
    assert figures["weft_index_log_tail_bytes"] < 256 * MIB
    # What was not there may be in a run: a page of each that its core has is looked at.
    lookups = figures["weft_index_page_lookups_total"]
    for number in range(50):
        with refused(404, "404"):
            s3.head_object(Bucket=BUCKET, Key=f"absent-{number}")
    after = listener.scrape()
    assert after["weft_index_page_lookups_total"] >= lookups + 50
    assert after["weft_index_page_lookups_total", {"result": "hit"}] > figures["weft_index_page_lookups_total", {"result": "hit"}]
    assert after["weft_index_read_bytes_total"] > 0 and after["weft_index_page_cache_bytes"] > 0


def test_scrapes_under_load_do_not_fail_and_never_fall(admin):
    listener = admin()
    s3 = client_for(listener.daemon.endpoint)
    s3.create_bucket(Bucket=BUCKET)
    stop = threading.Event()

    def write(thread: int) -> int:
        count = 0
        while not stop.is_set():
            s3.put_object(Bucket=BUCKET, Key=f"{thread}/{count % 50}", Body=b"x" * (4096 if count % 4 else 200_000))
            s3.get_object(Bucket=BUCKET, Key=f"{thread}/{count % 50}")["Body"].read()
            count += 1
        return count

    with ThreadPoolExecutor(6) as threads:
        writers = [threads.submit(write, thread) for thread in range(6)]
        try:
            scrapes = [listener.scrape() for _ in range(60)]
            with ThreadPoolExecutor(4) as scrapers:
                scrapes += scrapers.map(lambda _: listener.scrape(), range(40))
        finally:
            stop.set()
        written = sum(writer.result() for writer in writers)
    last = listener.scrape()
    assert last["weft_requests_total", {"operation": "PutObject", "code": "200"}] == written > 0
    assert last["weft_requests_total", {"operation": "GetObject", "code": "200"}] == written
    for before, after in zip(scrapes[:59], scrapes[1:60]):
        for name in ["weft_requests_total", "weft_disk_written_bytes_total", "weft_batch_records_sum"]:
            assert before[name] <= after[name]


def test_what_was_refused_unheard_is_counted(admin):
    listener = admin()
    address = ("127.0.0.1", listener.daemon.port)
    for _ in range(3):
        with Wire(address) as wire:
            wire.send(b"no head\r\n\r\n")
            assert wire.response().status == 400
    figures = listener.scrape()
    assert figures.by("weft_requests_unheard_total", "reason") == {
        "bad_head": 3,
        "late_head": 0,
        "no_room": 0,
        "starting": 0,
    }
    # Neither those nor health are operations.
    assert figures["weft_requests_total"] == 0 and figures["weft_ready"] == 1


def test_the_admin_listener_serves_nothing_else(admin):
    listener = admin()
    daemon = listener.daemon
    for path, method, status in [
        ("/-/live", "GET", 200),
        ("/-/ready", "HEAD", 200),
        ("/metrics", "HEAD", 200),
        ("/metrics", "POST", 405),
        ("/metrics", "PUT", 405),
        ("/-/live", "DELETE", 405),
        ("/", "GET", 404),
        ("/metrics/", "GET", 404),
        ("/bucket/key", "PUT", 404),
        ("/-/other", "GET", 404),
    ]:
        answer = requests.request(method, listener.url + path, data=b"x" * 100 if method == "PUT" else None, timeout=10)
        assert answer.status_code == status, (method, path, answer.text)
        assert ("allow" in answer.headers) == (status == 405)
    assert requests.get(f"{daemon.endpoint}/metrics", timeout=10).status_code == 403
    # A scraper keeps its connection.
    with requests.Session() as session:
        for _ in range(3):
            assert session.get(f"{listener.url}/metrics", timeout=10).status_code == 200
    assert daemon.log.count(f"metrics    http://127.0.0.1:{listener.port}/metrics") == 1


def test_connections_of_the_admin_listener_are_bounded_apart(admin):
    listener = admin()
    folder = Path(f"/proc/{listener.daemon.process.pid}/fd")

    def is_socket(descriptor: Path) -> bool:
        try:
            return os.readlink(descriptor).startswith("socket:")
        except FileNotFoundError:
            return False  # It was closed meanwhile: segments come and go.

    def sockets() -> int:
        return sum(map(is_socket, folder.iterdir()))

    before = sockets()
    held = []
    try:
        for _ in range(ADMIN_CONNECTIONS + 4):
            held.append(socket.create_connection(("127.0.0.1", listener.port), timeout=10))
            held[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-")
        # One more is accepted, and waits for a place.
        wait_until(lambda: sockets() > before, 10, "some to be accepted")
        assert sockets() - before <= ADMIN_CONNECTIONS + 1
        # Clients of S3 are none the worse.
        client_for(listener.daemon.endpoint).list_buckets()
        # Those that say nothing give way, or have their time.
        assert requests.get(f"{listener.url}/-/live", timeout=40).status_code == 200
    finally:
        for one in held:
            one.close()
    wait_until(lambda: requests.get(f"{listener.url}/metrics", timeout=10).status_code == 200, 10, "a place")
    listener.daemon.stop()
