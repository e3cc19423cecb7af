"""The process: how it starts, refuses to start, stops, restarts and fills up."""

import os
import re
import socket
import subprocess
import time

import pytest
from check import MIB, body_of, complete, etag, exists, keys_of, new_upload, pattern, put_part, refused, together
from conftest import client_for
from daemon import ACCESS_KEY, BINARY, SECRET_KEY, Daemon, free_port, new_data_dir, wait_until
from sigv4 import Signer
from wire import Raw, head, path_of

SIGNER = Signer(ACCESS_KEY, SECRET_KEY)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs weft until it ends by itself. Credentials come only from `environment`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WEFT_")}
    command = [str(BINARY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, env=clean | environment)


@pytest.fixture
def binary(own_daemon):
    """Skips where there is none."""
    return BINARY


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- the command line


def test_version_and_help(binary):
    version = run("--version")
    assert version.returncode == 0 and re.match(r"weft \d+\.\d+\.\d+", version.stdout)
    for arguments in (["--help"], ["serve", "--help"]):
        answer = run(*arguments)
        assert answer.returncode == 0 and "serve" in answer.stdout
    text = run("serve", "--help").stdout
    for flag in ("--data", "--listen", "--cores", "--capacity", "--memory", "--domain", "WEFT_ACCESS_KEY", "WEFT_SECRET_KEY"):
        assert flag in text
    assert "127.0.0.1:9000" in text and "xample" in text


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["serve"], ["serve", "--data"], ["serve", "--data", "{data}", "--nonsense"],
     ["serve", "--data", "{data}", "--listen", "nowhere"], ["serve", "--data", "{data}", "--listen", "127.0.0.1:99999"],
     ["serve", "--data", "{data}", "--capacity", "lots"], ["serve", "--data", "{data}", "--capacity", "1MiB"],
     ["serve", "--data", "{data}", "--cores", "0"], ["serve", "--data", "{data}", "--cores", "9999"],
     ["serve", "--data", "/proc/nowhere"]],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)  # fmt: skip
def test_a_wrong_command_line_is_an_error_and_not_a_panic(binary, arguments):
    data = new_data_dir()
    answer = run(*[argument.format(data=data) for argument in arguments])
    assert answer.returncode not in (0, 101, -6) and answer.returncode > 0
    assert answer.stderr and "panicked" not in answer.stderr


def test_the_start_says_what_it_serves_in_ten_lines_at_most(own_daemon):
    daemon = own_daemon("--cores", "1").start()
    lines = daemon.log.strip().splitlines()
    assert 1 <= len(lines) <= 10
    assert f"127.0.0.1:{daemon.port}" in daemon.log and str(daemon.data) in daemon.log


def test_every_flag_is_also_an_environment_variable(own_daemon):
    daemon = own_daemon()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WEFT_")}
    clean |= {"WEFT_DATA": str(daemon.data), "WEFT_LISTEN": f"127.0.0.1:{daemon.port}", "WEFT_CORES": "1"}
    clean |= {
        "WEFT_CAPACITY": "256MiB",
        "WEFT_DOMAIN": "example.test",
        "WEFT_ACCESS_KEY": "me",
        "WEFT_SECRET_KEY": "mine1234",
    }
    with daemon.log_path.open("ab") as log:
        daemon.process = subprocess.Popen([str(BINARY), "serve"], env=clean, stdout=log, stderr=log)
    wait_until(daemon.is_ready, 20, "ready")
    client_for(daemon.endpoint, "me", "mine1234").create_bucket(Bucket="mine")
    with refused(403, "InvalidAccessKeyId"):
        client_for(daemon.endpoint).list_buckets()
    daemon.stop()


def test_several_listeners_serve_the_same(own_daemon):
    port = free_port()
    daemon = own_daemon("--listen", f"127.0.0.1:{port}").start()
    client_for(daemon.endpoint).create_bucket(Bucket="shared")
    other = client_for(f"http://127.0.0.1:{port}")
    assert [b["Name"] for b in other.list_buckets()["Buckets"]] == ["shared"]
    daemon.stop()


# --- who may start


def test_a_second_daemon_on_the_same_directory_is_refused_before_its_port_is_bound(own_daemon):
    first = own_daemon().start()
    second = Daemon(data=first.data)
    process = subprocess.Popen(second.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    bound = False
    deadline = time.monotonic() + 15
    while process.poll() is None:
        bound = bound or listens(second.port)
        assert time.monotonic() < deadline, "the second daemon does not end"
    output = process.communicate()[0]
    assert process.returncode > 0 and not bound, output
    assert str(first.data) in output and "panicked" not in output
    assert first.is_ready()
    first.stop()


def test_a_second_daemon_on_the_same_port_is_refused(own_daemon):
    """SO_REUSEPORT would let two daemons share it, each with half of the connections."""
    first = own_daemon().start()
    second = own_daemon()
    second.port = first.port
    answer = subprocess.run(second.command(), capture_output=True, text=True, timeout=20)
    assert answer.returncode > 0 and str(first.port) in answer.stderr + answer.stdout
    first.stop()


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]"])
@pytest.mark.parametrize(
    "given",
    [{}, {"WEFT_ACCESS_KEY": "me"}, {"WEFT_ACCESS_KEY": "rustfsadmin", "WEFT_SECRET_KEY": "rustfssecret"}],
    ids=["none", "half", "the defaults"],
)
def test_default_credentials_off_loopback_are_refused(binary, address, given):
    """ATTACKS: default credentials off loopback."""
    port = free_port()
    answer = run(
        "serve", "--data", str(new_data_dir()), "--listen", f"{address}:{port}", "--capacity", "256MiB", **given
    )
    assert answer.returncode > 0
    assert "WEFT_SECRET_KEY" in answer.stderr + answer.stdout and "rustfssecret" not in answer.stderr + answer.stdout
    assert not listens(port)


def test_one_listener_off_loopback_among_others_is_enough_to_refuse(binary):
    ports = [free_port(), free_port()]
    listen = ["--listen", f"127.0.0.1:{ports[0]}", "--listen", f"0.0.0.0:{ports[1]}"]
    assert run("serve", "--data", str(new_data_dir()), *listen, "--capacity", "256MiB").returncode > 0


def test_own_credentials_replace_the_defaults(own_daemon):
    daemon = own_daemon()
    environment = os.environ | {"WEFT_ACCESS_KEY": "somebody", "WEFT_SECRET_KEY": "something-else"}
    with daemon.log_path.open("ab") as log:
        daemon.process = subprocess.Popen(daemon.command(), env=environment, stdout=log, stderr=log)
    wait_until(daemon.is_ready, 20, "ready")
    assert client_for(daemon.endpoint, "somebody", "something-else").list_buckets()["Buckets"] == []
    with refused(403, "InvalidAccessKeyId"):
        client_for(daemon.endpoint, "rustfsadmin", "rustfssecret").list_buckets()
    daemon.stop()
    assert "something-else" not in daemon.log


# --- stopping


def test_sigterm_finishes_what_is_in_flight(own_daemon):
    daemon = own_daemon().start()
    raw, s3 = Raw(daemon.endpoint, SIGNER), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="drain")
    body, target = pattern(400_000), "/drain/k"
    with raw.connect() as wire:
        wire.send(head("PUT", target, raw.signed("PUT", target, body)) + body[:200_000])
        with raw.connect() as idle:
            idle.request("GET", target, raw.signed("GET", target))
            daemon.process.terminate()
            # Nobody new is let in, and who does nothing is sent away.
            wait_until(lambda: not listens(daemon.port), 5, "the listener closes")
            idle.assert_closed()
        wire.send(body[200_000:])
        assert wire.response("PUT")["etag"] == etag(body)
    assert daemon.process.wait(20) == 0
    daemon.start()
    assert body_of(s3, "drain", "k") == body
    daemon.stop()


def test_sigterm_does_not_wait_for_ever(own_daemon):
    daemon = own_daemon().start()
    raw = Raw(daemon.endpoint, SIGNER)
    client_for(daemon.endpoint).create_bucket(Bucket="drain")
    with raw.connect() as wire:
        headers = raw.signed("PUT", "/drain/k", pattern(1000)) | {"expect": "100-continue"}
        wire.send(head("PUT", "/drain/k", headers))
        # Asked for its body, the request is in flight.
        assert wire.socket.recv(25).startswith(b"HTTP/1.1 100")
        begun = time.monotonic()
        assert daemon.terminate() == 0
        assert 5 < time.monotonic() - begun < 15
    daemon.start()
    assert not exists(client_for(daemon.endpoint), "drain", "k")
    daemon.stop()


def test_sigint_ends_it_as_sigterm_does(own_daemon):
    daemon = own_daemon().start()
    daemon.process.send_signal(2)
    assert daemon.process.wait(20) == 0


# --- restarting


def snapshot(s3, bucket: str) -> dict:
    """Everything that clients can see of a bucket."""
    seen = {}
    for key in keys_of(s3, bucket):
        got = s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        body = got.pop("Body").read()
        fields = {n: got[n] for n in sorted(got) if n not in ("ResponseMetadata", "Body")}
        seen[key] = (body, fields)
    return seen


def fill(s3, bucket: str) -> None:
    """Objects of every kind, overwritten and deleted ones among them, and an open upload."""
    s3.create_bucket(Bucket=bucket)
    for index, size in enumerate([0, 1, 4096, 65_536, 65_537, MIB, 3 * MIB]):
        s3.put_object(
            Bucket=bucket, Key=f"size/{size}", Body=pattern(size), Metadata={"n": str(index)}, ContentType="text/x"
        )
    for round in range(3):
        s3.put_object(Bucket=bucket, Key="overwritten", Body=pattern(100_000 * round, round))
    s3.put_object(Bucket=bucket, Key="deleted", Body=b"v")
    s3.delete_object(Bucket=bucket, Key="deleted")
    upload = new_upload(s3, bucket, "multi", Metadata={"m": "1"})
    parts = [put_part(s3, bucket, "multi", upload, n, pattern(5 * MIB, n)) for n in (1, 2)]
    complete(s3, bucket, "multi", upload, parts)
    s3.copy_object(Bucket=bucket, Key="copied", CopySource=f"{bucket}/multi")
    for index in range(200):
        s3.put_object(Bucket=bucket, Key=f"many/{index:03}", Body=pattern(index * 10, index))


def test_a_restart_keeps_everything(own_daemon):
    daemon = own_daemon().start()
    s3 = client_for(daemon.endpoint)
    fill(s3, "kept")
    s3.create_bucket(Bucket="gone")
    s3.delete_bucket(Bucket="gone")
    s3.create_bucket(Bucket="empty")
    open_upload = new_upload(s3, "kept", "open", ContentType="text/y")
    part = put_part(s3, "kept", "open", open_upload, 1, pattern(6 * MIB))
    before, buckets = snapshot(s3, "kept"), s3.list_buckets()["Buckets"]
    for _ in range(2):
        daemon.stop()
        daemon.start()
        assert daemon.ready_seconds < 3
        assert s3.list_buckets()["Buckets"] == buckets
        assert snapshot(s3, "kept") == before
        (listed,) = s3.list_parts(Bucket="kept", Key="open", UploadId=open_upload)["Parts"]
        assert listed["ETag"] == part["ETag"]
    complete(s3, "kept", "open", open_upload, [part])
    assert body_of(s3, "kept", "open") == pattern(6 * MIB)
    assert s3.head_object(Bucket="kept", Key="open")["ContentType"] == "text/y"
    daemon.stop()


def test_a_restart_may_have_another_number_of_cores(own_daemon):
    daemon = own_daemon("--cores", "2").start()
    s3 = client_for(daemon.endpoint)
    fill(s3, "kept")
    before = snapshot(s3, "kept")
    for round, cores in enumerate(["1", "2", "1"]):
        daemon.stop()
        daemon.flags = ("--cores", cores)
        daemon.start()
        assert snapshot(s3, "kept") == before
        # What is written under one number of cores is there under the next.
        s3.put_object(Bucket="kept", Key=f"round/{round}", Body=pattern(100_000, round))
        s3.put_object(Bucket="kept", Key="overwritten", Body=pattern(50_000, round))
        s3.delete_object(Bucket="kept", Key=f"many/{round:03}")
        before = snapshot(s3, "kept")
    daemon.stop()


def test_a_token_outlives_a_restart(own_daemon):
    daemon = own_daemon("--cores", "2").start()
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket="paged")
    for index in range(20):
        s3.put_object(Bucket="paged", Key=f"{index:02}", Body=b"")
    token = s3.list_objects_v2(Bucket="paged", MaxKeys=7)["NextContinuationToken"]
    daemon.stop()
    daemon.flags = ("--cores", "1")
    daemon.start()
    page = s3.list_objects_v2(Bucket="paged", MaxKeys=3, ContinuationToken=token)
    assert [entry["Key"] for entry in page["Contents"]] == ["07", "08", "09"]
    daemon.stop()


# --- a full volume


def fill_up(raw: Raw, bucket: str, size: int, threads: int) -> set[str]:
    """Puts objects from several connections until every one of them is told that the volume is full."""

    def put_until_full(index: int) -> list[str]:
        stored = []
        with raw.connect(timeout=30) as wire:
            while len(stored) < 100_000:
                key = f"{index}/{len(stored):06}"
                target = path_of(bucket, key)
                body = pattern(size, hash_of(key))
                answer = wire.request("PUT", target, raw.signed("PUT", target, body), body)
                if answer.status != 200:
                    assert answer.refusal == (507, "InsufficientStorage"), answer
                    return stored
                stored.append(key)
        raise AssertionError("the volume is never full")

    results = together(threads, put_until_full)
    assert all(isinstance(result, list) for result in results), results
    return {key for result in results for key in result}


def hash_of(key: str) -> int:
    """A few bodies, made once each."""
    return int(key[-1])


@pytest.mark.parametrize("size", [4 * MIB, 300_000, 30_000], ids=["4MiB", "300KB", "30KB"])
def test_a_full_volume_still_serves_reads_lists_and_deletes(own_daemon, size):
    daemon = own_daemon(capacity="256MiB").start()
    raw, s3 = Raw(daemon.endpoint, SIGNER), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="full")
    stored = fill_up(raw, "full", size, 4)
    # A good part of the capacity could be used.
    assert len(stored) * size > 128 * MIB
    assert set(keys_of(s3, "full")) == stored
    for key in sorted(stored)[:: max(1, len(stored) // 40)]:
        assert body_of(s3, "full", key) == pattern(size, hash_of(key))
    # What the last refused writers had reserved may hold a few more; then it is full for everyone.
    for more in range(16):
        key = f"more/{more:06}"
        answer = raw.request("PUT", path_of("full", key), pattern(size, hash_of(key)))
        if answer.status != 200:
            break
        stored.add(key)
    assert answer.refusal == (507, "InsufficientStorage")
    assert not exists(s3, "full", key)
    # A full volume also restarts, and takes deletes; these make room.
    daemon.stop()
    daemon.start()
    assert set(keys_of(s3, "full")) == stored
    for start in range(0, len(stored), 1000):
        some = [{"Key": key} for key in sorted(stored)[start : start + 1000]]
        assert "Errors" not in s3.delete_objects(Bucket="full", Delete={"Objects": some, "Quiet": True})
    assert keys_of(s3, "full") == []

    def stores_again() -> bool:
        answer = raw.request("PUT", "/full/again", pattern(size, 1))
        assert answer.status in (200, 507)
        return answer.status == 200

    wait_until(stores_again, 15, "room after deletes")
    assert body_of(s3, "full", "again") == pattern(size, 1)
    daemon.stop()


def test_a_volume_rewritten_many_times_over_does_not_fill(own_daemon):
    """Segments without a live byte are used again."""
    daemon = own_daemon(capacity="256MiB").start()
    raw, s3 = Raw(daemon.endpoint, SIGNER), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="rewritten")

    def rewrite(index: int) -> bool:
        target = path_of("rewritten", f"{index}")
        with raw.connect(timeout=30) as wire:
            for round in range(50):
                body = pattern(4 * MIB, round % 3)
                answer = wire.request("PUT", target, raw.signed("PUT", target, body), body)
                assert answer.status == 200, (round, answer)
        return True

    assert together(4, rewrite) == [True] * 4
    for index in range(4):
        assert body_of(s3, "rewritten", str(index)) == pattern(4 * MIB, 49 % 3)
    daemon.stop()
