"""HTTP/1.1 as it comes over the wire: framing, pipelining, refusals, and what every response has."""

import contextlib
import re
import socket
import time
from email.utils import parsedate_to_datetime

import pytest
from check import MIB, body_of, etag, exists, keys_of, pattern
from daemon import DOMAIN
from sigv4 import UNSIGNED
from wire import Closed, head, path_of, xml_text

MALFORMED = range(400, 432)


@pytest.fixture
def stored(s3, bucket) -> str:
    """The target of an object with body `stored`."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"stored")
    return path_of(bucket, "k")


def assert_serving(raw, target: str) -> None:
    """The daemon still answers others."""
    assert raw.request("GET", target).body == b"stored"


# --- every response


def test_every_response_has_an_id_a_date_and_a_server(raw, s3, bucket, stored):
    answers = [
        raw.request("GET", stored),
        raw.request("HEAD", stored),
        raw.request("PUT", path_of(bucket, "new"), b"v"),
        raw.request("DELETE", path_of(bucket, "new")),
        raw.request("GET", path_of(bucket, "nothing")),
        raw.request("GET", f"/{bucket}?list-type=2"),
        raw.request("GET", stored, headers={"if-none-match": etag(b"stored")}),
        raw.send("GET", stored, {}),
    ]
    ids = [answer["x-amz-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids) and all(ids)
    for answer in answers:
        assert answer["server"] == "weft"
        assert abs(parsedate_to_datetime(answer["date"]).timestamp() - time.time()) < 60
        assert answer["date"].endswith(" GMT")


@pytest.mark.parametrize("path", ["/-/live", "/-/ready"])
def test_health_needs_no_authentication(raw, path):
    for method in ("GET", "HEAD"):
        assert raw.send(method, path, {}).status == 200


def test_health_is_no_bucket(raw):
    assert raw.request("PUT", "/-/live/x", b"v").status >= 400
    assert raw.send("PUT", "/-/ready", {"content-length": "0"}).status >= 400


def test_an_error_to_head_has_no_body(raw, bucket, stored):
    with raw.connect() as wire:
        target = path_of(bucket, "nothing")
        assert wire.request("HEAD", target, raw.signed("HEAD", target)).status == 404
        # What follows on the connection is the next response, not a body.
        assert wire.request("GET", stored, raw.signed("GET", stored)).body == b"stored"


def test_head_says_the_length_that_get_would_send(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="large", Body=pattern(200_000))
    with raw.connect() as wire:
        for _ in range(3):
            answer = wire.request("HEAD", path_of(bucket, "large"), raw.signed("HEAD", path_of(bucket, "large")))
            assert (answer.status, answer["content-length"]) == (200, "200000")


# --- many requests on one connection


def test_a_connection_serves_many_requests(raw, bucket):
    with raw.connect() as wire:
        for index in range(50):
            target, body = path_of(bucket, f"k{index}"), pattern(index * 100)
            assert wire.request("PUT", target, raw.signed("PUT", target, body), body).status == 200
            assert wire.request("GET", target, raw.signed("GET", target)).body == body
            assert wire.request("DELETE", target, raw.signed("DELETE", target)).status == 204


def test_pipelined_requests_are_answered_in_order(raw, bucket):
    bodies = {path_of(bucket, f"k{i}"): pattern(size, i) for i, size in enumerate([0, 10, 70_000, 3, 300_000, 1])}
    puts = b"".join(head("PUT", t, raw.signed("PUT", t, body)) + body for t, body in bodies.items())
    gets = b"".join(head("GET", t, raw.signed("GET", t)) for t in bodies)
    with raw.connect() as wire:
        wire.send(puts + gets)
        assert [wire.response()["etag"] for _ in bodies] == [etag(body) for body in bodies.values()]
        assert [wire.response().body for _ in bodies] == list(bodies.values())


def test_a_pipelined_get_sees_the_put_before_it(raw, bucket):
    target = path_of(bucket, "k")
    with raw.connect() as wire:
        for index in range(10):
            body = b"%d" % index
            put = head("PUT", target, raw.signed("PUT", target, body)) + body
            wire.send(put + head("GET", target, raw.signed("GET", target)))
            assert wire.response().status == 200
            assert wire.response().body == body


def test_connection_close_is_obeyed(raw, stored):
    with raw.connect() as wire:
        wire.send(head("GET", stored, raw.signed("GET", stored, headers={"connection": "close"})))
        answer = wire.response()
        assert (answer.body, answer["connection"]) == (b"stored", "close")
        wire.assert_closed()


def test_http_1_0_closes_unless_asked_to_keep(raw, stored):
    with raw.connect() as wire:
        wire.send(head("GET", stored, raw.signed("GET", stored)).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert wire.response().body == b"stored"
        wire.assert_closed()


def test_a_request_may_arrive_a_byte_at_a_time(raw, bucket):
    target, body = path_of(bucket, "k"), b"slow body"
    with raw.connect() as wire:
        for byte in head("PUT", target, raw.signed("PUT", target, body)) + body:
            wire.send(bytes([byte]))
        assert wire.response().status == 200
    assert raw.request("GET", target).body == body


def test_empty_lines_before_a_request_are_skipped(raw, stored):
    """RFC 9112, 2.2: at least one."""
    with raw.connect() as wire:
        wire.send(b"\r\n" + head("GET", stored, raw.signed("GET", stored)))
        assert wire.response().body == b"stored"


def test_header_names_are_case_insensitive_and_values_trimmed(raw, stored):
    headers = {name.upper(): f" \t{value} \t" for name, value in raw.signed("GET", stored).items()}
    with raw.connect() as wire:
        wire.send(head("GET", stored, headers))
        assert wire.response().body == b"stored"


def test_an_absolute_target_is_accepted(raw, stored):
    """RFC 9112, 3.2.2: a server must accept the absolute form."""
    with raw.connect() as wire:
        wire.send(head("GET", f"http://{raw.host}{stored}", raw.signed("GET", stored)))
        assert wire.response().body == b"stored"


def test_a_virtual_host_names_the_bucket(raw, s3, server, bucket):
    if server is None:
        pytest.skip("an outside endpoint may not be started with --domain")
    host = {"host": f"{bucket}.{DOMAIN}"}
    assert raw.request("PUT", "/a/b", b"by host", host).status == 200
    assert body_of(s3, bucket, "a/b") == b"by host"
    assert raw.request("GET", "/a/b", headers=host | {"host": f"{bucket}.{DOMAIN}:9000"}).body == b"by host"
    listing = raw.request("GET", "/?list-type=2", headers=host)
    assert xml_text(listing.body, "Contents/Key") == "a/b"
    assert raw.request("GET", f"/{bucket}/a/b", headers={"host": DOMAIN}).body == b"by host"
    assert raw.presigned("GET", "/a/b", headers=host).body == b"by host"
    assert raw.request("GET", f"/{bucket}/a/b", headers=host).refusal == (404, "NoSuchKey")


# --- Expect: 100-continue


def test_the_body_is_asked_for(raw, bucket):
    target, body = path_of(bucket, "k"), pattern(100_000)
    with raw.connect() as wire:
        wire.send(head("PUT", target, raw.signed("PUT", target, body, {"expect": "100-continue"})))
        assert wire.any_response().status == 100
        wire.send(body)
        assert wire.any_response("PUT").status == 200
        # And the connection goes on.
        assert wire.request("GET", target, raw.signed("GET", target)).body == body


def test_a_client_that_does_not_wait_is_served_too(raw, bucket):
    target, body = path_of(bucket, "k"), b"eager"
    with raw.connect() as wire:
        wire.send(head("PUT", target, raw.signed("PUT", target, body, {"expect": "100-Continue"})) + body)
        assert wire.response().status == 200
        assert wire.request("GET", target, raw.signed("GET", target)).body == body


def test_a_request_refused_on_its_head_is_not_asked_for_its_body(raw, s3, bucket):
    target = path_of(bucket, "k")
    expect = {"expect": "100-continue", "content-length": "1000000"}
    wrong = raw.signed("PUT", target, headers=expect)
    wrong["authorization"] = wrong["authorization"][:-4] + "0000"
    missing = raw.signed("PUT", "/t-never-made/k", headers=expect)
    too_large = raw.signed("PUT", target, headers=expect | {"content-length": str(6 << 30)})
    unmet = raw.signed("PUT", target, headers=expect | {"if-match": etag(b"x")}, payload=UNSIGNED)
    for at, headers, refusal in (
        (target, wrong, (403, "SignatureDoesNotMatch")),
        (target, {"host": raw.host} | expect, (403, "AccessDenied")),
        ("/t-never-made/k", missing, (404, "NoSuchBucket")),
        (target, too_large, (400, "EntityTooLarge")),
        (target, unmet, (404, "NoSuchKey")),
    ):
        with raw.connect() as wire:
            wire.send(head("PUT", at, headers))
            assert wire.any_response("PUT").refusal == refusal
    assert keys_of(s3, bucket) == []


# --- bodies


def test_a_body_may_be_chunked(raw, s3, bucket):
    target, body = path_of(bucket, "k"), pattern(100_000)
    headers = raw.signer.header("PUT", target, {"host": raw.host, "transfer-encoding": "chunked"}, payload=UNSIGNED)
    with raw.connect() as wire:
        wire.send(head("PUT", target, headers))
        for start in range(0, len(body), 7000):
            piece = body[start : start + 7000]
            wire.send(f"{len(piece):X};ext=1\r\n".encode() + piece + b"\r\n")
        wire.send(b"0\r\nX-Trailer: ignored\r\n\r\n")
        answer = wire.response("PUT")
        # S3 itself wants a length: 411 is its answer. Both leave the connection in order.
        assert answer.refusal in [(200, ""), (411, "MissingContentLength")]
        if answer.status == 200:
            assert body_of(s3, bucket, "k") == body
            assert wire.request("GET", target, raw.signed("GET", target)).body == body


def test_a_put_without_a_length_is_refused(raw, s3, bucket):
    target = path_of(bucket, "k")
    headers = raw.signer.header("PUT", target, {"host": raw.host})
    answer = raw.send("PUT", target, headers)
    # Without length and coding there is no body (RFC 9112, 6.3): S3 says that one is missing.
    assert answer.refusal == (411, "MissingContentLength")
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("size,sent", [(10, 4), (100_000, 99_999), (5 * MIB, 3 * MIB), (10, 0)])
def test_a_body_cut_short_is_incomplete_and_stores_nothing(raw, s3, bucket, size, sent):
    target, body = path_of(bucket, "k"), pattern(size)
    with raw.connect() as wire:
        wire.send(head("PUT", target, raw.signed("PUT", target, body)) + body[:sent])
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.response("PUT").refusal == (400, "IncompleteBody")
        wire.assert_closed()
    assert not exists(s3, bucket, "k")


def test_a_client_that_vanishes_in_its_body_changes_nothing(raw, s3, bucket, stored):
    for size in (10, 100_000, 2 * MIB):
        body = pattern(size)
        wire = raw.connect()
        wire.send(head("PUT", stored, raw.signed("PUT", stored, body)) + body[: size // 2])
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wire.socket.close()
        assert_serving(raw, stored)


def test_clients_that_vanish_while_they_read_do_no_harm(raw, s3, bucket, stored):
    s3.put_object(Bucket=bucket, Key="large", Body=pattern(8 * MIB))
    target = path_of(bucket, "large")
    for _ in range(20):
        with raw.connect() as wire:
            wire.send(head("GET", target, raw.signed("GET", target)))
            wire.socket.recv(1000)
    assert_serving(raw, stored)


LENGTHS = ["-1", "+5", "5x", "0x5", " ", "", "5, 5", "5 5", "18446744073709551616", "99999999999999999999999999", "５"]


@pytest.mark.parametrize("length", LENGTHS, ids=ascii)
def test_a_content_length_that_is_no_number_is_refused_and_closes(raw, s3, bucket, length):
    target = path_of(bucket, "k")
    headers = raw.signer.header("PUT", target, {"host": raw.host}, payload=UNSIGNED)
    with raw.connect() as wire:
        wire.send_or_closed(head("PUT", target, headers | {"content-length": length}) + b"5bytes")
        assert wire.response("PUT").status in (400, 411)
        wire.assert_closed()
    assert not exists(s3, bucket, "k")


def test_more_than_5_gib_in_one_put_is_too_large(raw, bucket):
    target = path_of(bucket, "k")
    for length in ((5 << 30) + 1, 1 << 62):
        headers = raw.signed("PUT", target, headers={"content-length": str(length)}, payload=UNSIGNED)
        with raw.connect() as wire:
            wire.send(head("PUT", target, headers))
            assert wire.response("PUT").refusal == (400, "EntityTooLarge")


# --- what an HTTP parser must not be talked into


def smuggle(raw, target: str, lines: list[bytes], body: bytes) -> tuple[int, bool]:
    """Sends a signed PUT with extra header lines; status of the answer, and whether the connection closed after it."""
    headers = raw.signer.header("PUT", target, {"host": raw.host}, payload=UNSIGNED)
    request = head("PUT", target, headers)[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    with raw.connect(timeout=10) as wire:
        wire.send_or_closed(request)
        status = wire.response("PUT").status
        try:
            wire.assert_closed()
        except AssertionError:
            return status, False
    return status, True


HIDDEN = b"GET /-/live HTTP/1.1\r\nHost: x\r\n\r\n"
FRAMING = {
    "length and chunked": [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    "chunked and length": [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "two equal lengths": [b"Content-Length: 5", b"Content-Length: 5"],
    "chunked with a tab": [b"Transfer-Encoding:\tchunked\t", b"Content-Length: 5"],
    "vertical tab": [b"Transfer-Encoding: \x0bchunked"],
    "chunked in quotes": [b'Transfer-Encoding: "chunked"'],
    "xchunked": [b"Transfer-Encoding: xchunked"],
    "chunked, identity": [b"Transfer-Encoding: chunked, identity"],
    "identity": [b"Transfer-Encoding: identity", b"Content-Length: 5"],
    "gzip": [b"Transfer-Encoding: gzip"],
    "gzip, chunked": [b"Transfer-Encoding: gzip, chunked"],
    "chunked twice": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "space before the colon": [b"Transfer-Encoding : chunked"],
    "space before the length's colon": [b"Content-Length : 5"],
    "folded": [b"Transfer-Encoding:", b" chunked"],
    "nul in a value": [b"Content-Length: 5\x00"],
    "no colon": [b"Content-Length: 5", b"nonsense"],
    "empty name": [b"Content-Length: 5", b": x"],
    "bare cr": [b"Content-Length: 5", b"X-A: b\rX-C: d"],
    "two hosts": [b"Content-Length: 5", b"Host: elsewhere"],
}


@pytest.mark.parametrize("case", FRAMING)
def test_ambiguous_framing_is_refused_and_closes(raw, s3, bucket, case):
    body = b"0\r\n\r\n" + HIDDEN
    status, closed = smuggle(raw, path_of(bucket, "k"), FRAMING[case], body)
    assert status in (*MALFORMED, 501) and closed, "what follows must not be read as a request"
    assert not exists(s3, bucket, "k")


CHUNKINGS = {
    "bare line feeds": b"5\nhello\n0\n\n",
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "size overflows": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "no line end after data": b"5\r\nhello0\r\n\r\n",
    "wrong line end after data": b"5\r\nhelloXX0\r\n\r\n",
    "space before size": b" 5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "endless extension": b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
    "trailer without a colon": b"5\r\nhello\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
    "trailer without a name": b"5\r\nhello\r\n0\r\n: b\r\n\r\n",
    "folded trailer": b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
    "endless trailer": b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
}


@pytest.mark.parametrize("case", CHUNKINGS)
def test_malformed_chunks_are_refused_and_close(raw, s3, bucket, case):
    status, closed = smuggle(raw, path_of(bucket, "k"), [b"Transfer-Encoding: chunked"], CHUNKINGS[case] + HIDDEN)
    assert status in MALFORMED and closed
    assert not exists(s3, bucket, "k")


def test_a_chunk_that_declares_4_gib_costs_no_memory(raw, server, s3, bucket, stored):
    before = server.resident_bytes if server else 0
    headers = raw.signer.header(
        "PUT", path_of(bucket, "other"), {"host": raw.host, "transfer-encoding": "chunked"}, payload=UNSIGNED
    )
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            wire = stack.enter_context(raw.connect())
            wire.send_or_closed(head("PUT", path_of(bucket, "other"), headers) + b"FFFFFFFF\r\n" + b"x" * 1000)
        assert_serving(raw, stored)
        if server:
            assert server.resident_bytes - before < 64 * MIB
    assert not exists(s3, bucket, "other")


@pytest.mark.parametrize("expectation", ["200-ok", "", "100-continue, 200-ok", "x"])
def test_an_expectation_that_is_not_known_fails(raw, s3, bucket, expectation):
    answer = raw.request("PUT", path_of(bucket, "k"), b"v", {"expect": expectation})
    assert answer.status == 417
    assert not exists(s3, bucket, "k")


HEADS = {
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "other version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "spaces in the target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "relative target": b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "nul in a name": b"GET / HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "bad method": b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("case", HEADS)
def test_a_malformed_head_is_refused_and_closes(raw, stored, case):
    with raw.connect() as wire:
        wire.send_or_closed(HEADS[case])
        try:
            assert wire.response().status in (*MALFORMED, 505)
            wire.assert_closed()
        except Closed:
            pass
    assert_serving(raw, stored)


@pytest.mark.parametrize("case", ["long target", "long header", "many headers", "many long headers", "no end"])
def test_an_oversized_head_is_refused_and_closes(raw, stored, case):
    line = b"GET / HTTP/1.1\r\nHost: x\r\n"
    heads = {
        "long target": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "long header": line + b"X-A: " + b"b" * 20_000 + b"\r\n\r\n",
        "many headers": line + b"".join(b"X-%d: y\r\n" % i for i in range(101)) + b"\r\n",
        "many long headers": line + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 500) for i in range(50)) + b"\r\n",
        "no end": line + b"X-A: b\r\n" * 100_000,
    }
    with raw.connect() as wire:
        wire.send_or_closed(heads[case])
        try:
            answer = wire.response()
            assert answer.status in (400, 414, 431)
            assert answer.code in (
                "",
                "RequestHeaderSectionTooLarge",
                "InvalidURI",
                "BadRequest",
                "InvalidRequest",
                "KeyTooLongError",
            )
            wire.assert_closed()
        except Closed:
            pass
    assert_serving(raw, stored)


def test_a_head_within_bounds_is_served(raw, stored):
    """Just under 16 KiB and 100 headers."""
    headers = {f"x-pad-{i}": "p" * 100 for i in range(90)}
    assert raw.send("GET", stored, raw.signed("GET", stored) | headers).body == b"stored"


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "CONNECT", "PROPFIND", "FOO", "get", "X" * 40])
@pytest.mark.parametrize("level", ["service", "bucket", "object"])
def test_an_unknown_method_is_not_allowed(raw, bucket, stored, method, level):
    target = {"service": "/", "bucket": f"/{bucket}", "object": stored}[level]
    answer = raw.request(method, target)
    assert answer.status in (400, 403, 405, 501)
    assert answer.code in ("MethodNotAllowed", "BadRequest", "InvalidRequest", "NotImplemented", "AccessDenied", "")
    assert_serving(raw, stored)


@pytest.mark.parametrize(
    "method,level",
    [("POST", "object"), ("POST", "bucket"), ("PUT", "service"), ("DELETE", "service"), ("POST", "service")],
)
def test_a_known_method_where_it_means_nothing_is_not_allowed(raw, bucket, stored, method, level):
    target = {"service": "/", "bucket": f"/{bucket}", "object": stored}[level]
    answer = raw.request(method, target)
    assert answer.status in (400, 405, 411, 412, 501) and answer.code
    assert_serving(raw, stored)


@pytest.mark.parametrize("escape", ["%", "%4", "%zz", "%u0041", "a%"])
def test_a_malformed_escape_in_the_path_is_refused(raw, bucket, escape):
    answer = raw.send("GET", f"/{bucket}/{escape}", raw.signer.header("GET", f"/{bucket}/x", {"host": raw.host}))
    assert answer.status in (400, 403)


def test_a_fragment_or_control_character_in_the_target_is_refused(raw, bucket, stored):
    for target in (f"/{bucket}/k\x01", f"/{bucket}/k\x7f"):
        with raw.connect() as wire:
            wire.send_or_closed(b"GET " + target.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(Closed):
                assert wire.response().status in (400, 403)
    assert_serving(raw, stored)


# --- many and slow clients


def test_hundreds_of_half_sent_heads_keep_nobody_out(raw, stored):
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(raw.connect()).send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(20):
            assert_serving(raw, stored)


def test_a_thousand_idle_connections_are_all_served(raw, stored):
    wires = []
    try:
        for _ in range(1000):
            wires.append(raw.connect())
        request = head("GET", stored, raw.signed("GET", stored))
        for wire in wires:
            wire.send(request)
        assert all(wire.response().body == b"stored" for wire in wires)
    finally:
        for wire in wires:
            wire.socket.close()
