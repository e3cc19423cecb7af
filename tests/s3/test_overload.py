"""Clients that are slow, and clients that are too many: who is ended, who is not, and what they are told."""

import contextlib
import hashlib
import socket
import threading
import time
from base64 import b64encode

import pytest
from check import MIB, body_of, etag, exists, pattern, together
from conftest import client_for
from daemon import ACCESS_KEY, SECRET_KEY, wait_until
from sigv4 import Signer
from wire import TIMEOUT, Closed, Raw, Response, Wire, head, path_of, xml

SECOND = 1.0
# A peer is given up after 60 s, on the sweep behind it.
GIVEN_UP = (55, 75)
# Those that keep to the rate are watched for longer than that.
LONG = 80


class Client:
    """One who sends or reads a little, and again after a second, until the server has had enough or `LONG` is over."""

    def __init__(self, raw: Raw, request: bytes):
        self.wire = raw.connect(timeout=LONG)
        self.begun = time.monotonic()
        self.wire.send(request)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.wire.socket.close()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def send_slowly(self, pieces) -> Response:
        """Sends one piece a second; returns the answer that comes in between, or after the last."""
        for piece in pieces:
            self.wire.send_or_closed(piece)
            self.wire.socket.settimeout(SECOND)
            with contextlib.suppress(TimeoutError):
                return self.wire.any_response("PUT")
        self.wire.socket.settimeout(LONG)
        return self.wire.any_response("PUT")

    def read_slowly(self, length: int) -> bytes:
        """Reads `length` bytes a second for `LONG`, and then the rest; what there was is returned."""
        parts, never = [], threading.Event()
        with contextlib.suppress(ConnectionResetError):
            while self.seconds < LONG:
                parts.append(self.wire.socket.recv(length))
                never.wait(SECOND)
            while part := self.wire.socket.recv(MIB):
                parts.append(part)
        return b"".join(parts)


def test_peers_that_are_too_slow_are_ended_and_others_are_not(raw, s3, bucket):
    """A head has 30 s; a body or response that makes no progress, or next to none, 60 s. ATTACKS: slow bodies."""
    large = pattern(32 * MIB)
    s3.put_object(Bucket=bucket, Key="large", Body=large)

    def put(key: str, body: bytes) -> bytes:
        target = path_of(bucket, key)
        return head("PUT", target, raw.signed("PUT", target, body))

    target = path_of(bucket, "large")
    get = head("GET", target, raw.signed("GET", target, headers={"connection": "close"}))

    def slow_head() -> None:
        with Client(raw, b"GET / HTTP/1.1\r\nHost: x\r\n") as client:
            assert client.wire.any_response().refusal == (400, "RequestTimeout")
            assert 25 < client.seconds < 45
            client.wire.assert_closed()

    def silent_body() -> None:
        body = pattern(100_000)
        with Client(raw, put("silent", body) + body[:50_000]) as client:
            assert client.wire.any_response("PUT").refusal == (400, "RequestTimeout")
            assert GIVEN_UP[0] < client.seconds < GIVEN_UP[1]
            client.wire.assert_closed()

    def trickling_body(size: int, step: int) -> None:
        body = pattern(size)
        pieces = (body[at : at + step] for at in range(0, size, step))
        with Client(raw, put("trickling", body)) as client:
            assert client.send_slowly(pieces).refusal == (400, "RequestTimeout")
            assert GIVEN_UP[0] < client.seconds < GIVEN_UP[1]
            client.wire.assert_closed()

    def slow_body() -> None:
        body = pattern(LONG * 1024)
        with Client(raw, put("slow", body)) as client:
            answer = client.send_slowly(body[at : at + 1024] for at in range(0, len(body), 1024))
            assert answer["etag"] == etag(body) and client.seconds > GIVEN_UP[1]

    def body_in_bursts() -> None:
        body = pattern(4 * 40_000)
        pieces = (body[at // 20 * 40_000 :][:40_000] if at % 20 == 0 else b"" for at in range(LONG))
        with Client(raw, put("bursts", body)) as client:
            assert client.send_slowly(pieces)["etag"] == etag(body)

    def trickling_reader() -> None:
        with Client(raw, get) as client:
            assert len(client.read_slowly(1)) < len(large)

    def slow_reader() -> None:
        # Slower than the server's socket makes room for more: what counts is what the client takes.
        with Client(raw, get) as client:
            assert client.read_slowly(16 * 1024).endswith(large)

    scenes = [
        slow_head, silent_body, lambda: trickling_body(1000, 1), lambda: trickling_body(3 * MIB, 10), slow_body,
        body_in_bursts, trickling_reader, slow_reader,
    ]  # fmt: skip
    assert together(len(scenes), lambda index: scenes[index]()) == [None] * len(scenes)
    assert not exists(s3, bucket, "silent") and not exists(s3, bucket, "trickling")
    assert body_of(s3, bucket, "slow") == pattern(LONG * 1024)


# --- the memory of bodies


def test_slow_bodies_give_way_to_those_that_wait_for_memory(own_daemon):
    """Each large body holds a buffer of 256 KiB, of 64 MiB that a core has for them."""
    slow, size = 300, MIB
    daemon = own_daemon("--cores", "1").start()
    raw, s3 = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="scarce")
    with contextlib.ExitStack() as stack:
        wires = []
        for index in range(slow):
            target, body = path_of("scarce", f"slow/{index}"), pattern(size, index % 5)
            headers = raw.signed("PUT", target, body, {"expect": "100-continue"})
            wires.append(stack.enter_context(raw.connect(timeout=30)))
            wires[-1].send(head("PUT", target, headers))
        # Those that have a buffer are asked for their bodies, and send little of them.
        for wire in wires[:200]:
            assert wire.any_response().status == 100
            wire.send(b"x")
        # Others send at once, and each is served; most of the buffers are with the slow ones.
        for index in range(3):
            target, body = path_of("scarce", f"quick/{index}"), pattern(3 * size, index)
            assert raw.request("PUT", target, body).status == 200
            assert body_of(s3, "scarce", f"quick/{index}") == body
        told = []
        for wire in wires:
            wire.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError, Closed):
                told.append(wire.response("PUT").refusal)
        # No more than were in the way, each with an answer that clients try again after.
        assert set(told) == {(503, "SlowDown")} and slow - 256 <= len(told) < slow / 2
    daemon.stop()


def test_slow_small_bodies_hold_no_more_memory_than_there_is(own_daemon):
    """Bodies that go with their records are of 64 KiB at most: 1,024 of them are all that a core has."""
    daemon = own_daemon("--cores", "1").start()
    raw, s3 = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="scarce")
    body = pattern(64 * 1024)
    with contextlib.ExitStack() as stack:
        for index in range(1100):
            target = path_of("scarce", f"slow/{index}")
            wire = stack.enter_context(raw.connect(timeout=30))
            wire.send(head("PUT", target, raw.signed("PUT", target, body)) + body[:1000])
        assert raw.request("PUT", path_of("scarce", "quick"), body).status == 200
        assert body_of(s3, "scarce", "quick") == body
    daemon.stop()


def test_readers_that_take_nothing_hold_no_memory_and_go_on_where_they_were(own_daemon):
    """What was read for a client that stopped taking it is given back, and read again when it goes on."""
    stalled, size = 400, 24 * MIB
    daemon = own_daemon("--cores", "1").start()
    raw, s3 = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="scarce")
    large = pattern(size)
    s3.put_object(Bucket="scarce", Key="large", Body=large)
    target = path_of("scarce", "large")
    request = head("GET", target, raw.signed("GET", target))
    before = daemon.resident_bytes
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(raw.connect(timeout=60)) for _ in range(stalled)]
        for wire in wires:
            wire.send(request)
        # Others are served meanwhile, though 400 pieces of 256 KiB are more than a core has.
        assert body_of(s3, "scarce", "large") == large
        s3.put_object(Bucket="scarce", Key="new", Body=large)
        wait_until(lambda: daemon.resident_bytes < before + 110 * MIB, 20, "buffers are given back")
        for wire in wires[:: stalled // 4]:
            answer = wire.response()
            assert answer.status == 200 and answer.body == large
    daemon.stop()


def test_listings_that_nobody_reads_give_way_to_those_that_wait_for_memory(own_daemon):
    """A page of 1,000 long keys of quotes is of 6 MiB: ten of them are all that a core has."""
    daemon = own_daemon("--cores", "1").start()
    raw, s3 = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="scarce")
    together(16, lambda index: [
        s3.put_object(Bucket="scarce", Key=f"{index:02}{number:04}" + '"' * 1000) for number in range(63)
    ])  # fmt: skip
    target = "/scarce?list-type=2"
    before = daemon.resident_bytes
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            wire = stack.enter_context(raw.connect(timeout=60))
            # Else the sockets' buffers have room for more of it.
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.send(head("GET", target, raw.signed("GET", target)))
        put, body = path_of("scarce", "new"), pattern(3 * MIB)
        wait_until(lambda: raw.request("PUT", put, body).status == 200, 60, "another client is served")
        assert body_of(s3, "scarce", "new") == body
        assert daemon.resident_bytes < before + 110 * MIB
    daemon.stop()


def test_a_slow_reader_holds_the_segments_that_it_reads_and_no_others(own_daemon):
    daemon = own_daemon("--cores", "2", capacity="256MiB").start()
    raw, s3 = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="narrow")
    read, written = pattern(24 * MIB), pattern(4 * MIB, 1)
    s3.put_object(Bucket="narrow", Key="read", Body=read)
    with raw.connect(timeout=60) as wire:
        target = path_of("narrow", "read")
        wire.send(head("GET", target, raw.signed("GET", target)))
        assert wire.socket.recv(100, socket.MSG_PEEK)
        # Three times what the volume holds: each overwritten body must give its room back.
        for _ in range(200):
            s3.put_object(Bucket="narrow", Key="written", Body=written)
        assert wire.response().body == read
    daemon.stop()


def post_delete(raw: Raw, body: bytes, length: int | None = None) -> bytes:
    """A DeleteObjects whose document is `body`, or begins with it."""
    headers = {"content-md5": b64encode(hashlib.md5(body).digest()).decode(), "content-length": str(length or len(body))}
    return head("POST", "/scarce?delete", raw.signed("POST", "/scarce?delete", body, headers)) + body


def delete_document(length: int) -> bytes:
    """A document of that many bytes, which deletes one key."""
    document = b"<Delete><Object><Key>k</Key></Object>%s</Delete>"
    return document % (b" " * (length - len(document) + 2))


def test_documents_hold_what_has_come_of_them_and_not_what_they_announce(own_daemon):
    """XML bodies are of up to 8 MiB, and are gathered whole: 64 of them announce 512 MiB, and send a little."""
    daemon = own_daemon("--cores", "1").start()
    raw, s3 = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="scarce")
    body = pattern(300_000)
    with contextlib.ExitStack() as stack:
        for index in range(64):
            wire = stack.enter_context(raw.connect(timeout=60))
            if index % 2:
                wire.send(post_delete(raw, b"<Delete>", 8 * MIB))
            else:
                signed = raw.signer.header(
                    "POST", "/scarce?delete", {"host": raw.host, "transfer-encoding": "chunked",
                    "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, payload="UNSIGNED-PAYLOAD")  # fmt: skip
                wire.send(head("POST", "/scarce?delete", signed) + b"8\r\n<Delete>\r\n")
        begun = time.monotonic()
        assert raw.request("PUT", path_of("scarce", "quick"), body).status == 200
        with raw.connect() as wire:
            wire.send(post_delete(raw, delete_document(100)))
            assert wire.response("POST").status == 200
        assert time.monotonic() - begun < 2
    daemon.stop()


def test_long_documents_that_need_what_others_hold_are_all_read(own_daemon):
    """Documents of a core hold up to 32 MiB, and each of these doubles what it holds until there is no more."""
    daemon = own_daemon("--cores", "1").start()
    raw, s3 = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="scarce")
    before = daemon.resident_bytes
    request = post_delete(raw, delete_document(8 * MIB))
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(raw.connect(timeout=60)) for _ in range(15)]
        for wire in wires:
            wire.send(request[: MIB + 100_000])
        together(len(wires), lambda index: wires[index].send(request[MIB + 100_000 :]))
        assert [wire.response("POST").status for wire in wires] == [200] * len(wires)
        assert daemon.resident_bytes < before + 110 * MIB
    daemon.stop()


def test_the_answer_to_a_long_document_says_little_of_keys_that_are_too_long(own_daemon):
    """A quote is six bytes in XML: a key of 8 MiB of them would be told in 48."""
    daemon = own_daemon("--cores", "1").start()
    raw, s3 = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(daemon.endpoint)
    s3.create_bucket(Bucket="scarce")
    s3.put_object(Bucket="scarce", Key='"' * 1024, Body=b"")
    key = b'"' * (8 * MIB - 100)
    document = b"<Delete><Object><Key>%s</Key></Object><Object><Key>k</Key></Object></Delete>" % key
    with raw.connect() as wire:
        wire.send(post_delete(raw, document))
        answer = wire.response("POST")
    found = xml(answer.body)
    assert (found.findtext("Error/Code"), found.findtext("Deleted/Key")) == ("KeyTooLongError", "k")
    assert found.findtext("Error/Key") == '"' * 1025
    # What was cut is no key.
    assert exists(s3, "scarce", '"' * 1024)
    daemon.stop()


def test_what_refused_clients_still_send_takes_no_memory(own_daemon):
    daemon = own_daemon("--cores", "1").start()
    raw = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY))
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(raw.connect()) for _ in range(1000)]
        before = daemon.resident_bytes
        for wire in wires:
            wire.send(b"GET / HTTP/1.1\r\n\r\n")
        assert {wire.response().refusal for wire in wires} == {(400, "BadRequest")}
        for wire in wires:
            wire.send(bytes(60_000))
        assert raw.send("GET", "/-/live", {}).status == 200
        assert daemon.resident_bytes < before + 24 * MIB
    daemon.stop()


# --- connections


@pytest.fixture
def narrow(own_daemon):
    """A daemon with descriptors for some 200 connections."""
    daemon = own_daemon("--cores", "1", descriptors=900).start()
    yield daemon
    daemon.assert_alive()
    daemon.stop()


def is_closed(wire: Wire) -> bool:
    wire.socket.setblocking(False)
    try:
        return wire.socket.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_new_connections_take_the_place_of_those_that_have_been_idle_for_longest(narrow):
    raw, s3 = Raw(narrow.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(narrow.endpoint)
    s3.create_bucket(Bucket="narrow")
    s3.put_object(Bucket="narrow", Key="k", Body=b"stored")
    request = head("GET", "/narrow/k", raw.signed("GET", "/narrow/k"))
    with contextlib.ExitStack() as stack:

        def connect(sent: bytes) -> Wire:
            wire = stack.enter_context(raw.connect())
            wire.send(sent)
            return wire

        def served() -> Wire | None:
            """A connection with a request behind it; a second may pass before another is idle enough to give way."""
            wire = connect(request)
            answer = wire.response()
            assert answer.body == b"stored" or answer.refusal == (503, "SlowDown")
            return wire if answer.status == 200 else None

        begun = [connect(b"GET / HTTP/1.1\r\nHost: x\r\n") for _ in range(100)]
        silent = [connect(b"") for _ in range(60)]
        used = [wait_until(served, 5, "a connection is served") for _ in range(300)]
        assert all(map(is_closed, silent))
        assert [wire.response().refusal for wire in begun] == [(503, "SlowDown")] * 100
        # Of those that were served the last ones are kept, and serve again.
        kept = [index for index, wire in enumerate(used) if not is_closed(wire)]
        assert len(kept) > 100 and kept == list(range(kept[0], 300))
        for index in (kept[0], kept[-1]):
            used[index].socket.settimeout(TIMEOUT)
            used[index].send(request)
            assert used[index].response().body == b"stored"
        assert raw.send("GET", "/-/live", {}).status == 200


def test_refusals_that_nobody_reads_keep_no_one_out(narrow):
    """They need no credentials: a path of quotes, many times over, and a window that has no room for the answers."""
    raw, s3 = Raw(narrow.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(narrow.endpoint)
    s3.create_bucket(Bucket="narrow")
    s3.put_object(Bucket="narrow", Key="k", Body=b"stored")
    questions = [b"GET /" + b"'" * 15_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /-/live HTTP/1.1\r\nHost: x\r\n\r\n" * 100]
    request = head("GET", "/narrow/k", raw.signed("GET", "/narrow/k"))
    with contextlib.ExitStack() as stack:
        for index in range(400):
            idle = stack.enter_context(socket.socket())
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            idle.settimeout(TIMEOUT)
            idle.connect(raw.address)
            idle.setblocking(False)
            with contextlib.suppress(OSError):
                while True:
                    idle.send(questions[index % 2])

        def is_served() -> bool:
            with raw.connect() as wire:
                wire.send(request)
                return wire.response().body == b"stored"

        wait_until(is_served, 10, "a client with credentials is served")
        assert all(is_served() for _ in range(20))


def test_a_server_whose_connections_are_all_at_work_says_so_and_still_answers_after_its_health(narrow):
    raw, s3 = Raw(narrow.endpoint, Signer(ACCESS_KEY, SECRET_KEY)), client_for(narrow.endpoint)
    s3.create_bucket(Bucket="narrow")
    body = pattern(2000)
    with contextlib.ExitStack() as stack:
        busy = []
        while len(busy) < 600:
            target = path_of("narrow", f"{len(busy)}")
            wire = stack.enter_context(raw.connect())
            wire.send(head("PUT", target, raw.signed("PUT", target, body, {"expect": "100-continue"})))
            answer = wire.any_response("PUT")
            if answer.status != 100:
                break
            busy.append(wire)
        assert 100 < len(busy) < 300
        assert answer.refusal == (503, "SlowDown") and answer["connection"] == "close" and "retry-after" in answer
        wire.assert_closed()
        for _ in range(3):
            # Silent ones do not fill the reserve, and neither do those that are turned away.
            silent = [stack.enter_context(raw.connect()) for _ in range(100)]
            turned_away = together(20, lambda _: raw.request("GET", "/narrow/0"))
            assert [answer.refusal for answer in turned_away] == [(503, "SlowDown")] * 20
            # With a body that nobody reads, too.
            assert raw.request("PUT", "/narrow/k", pattern(MIB)).refusal == (503, "SlowDown")
            assert [raw.send("GET", path, {}).status for path in ("/-/live", "/-/ready")] == [200, 200]
        # The last silent one has the reserve's time, and no more.
        wait_until(lambda: is_closed(silent[-1]), 10, "a silent connection of the reserve is closed")
        for wire in busy:
            wire.send(body)
            assert wire.response("PUT")["etag"] == etag(body)
        assert raw.request("GET", "/narrow/0").body == body
