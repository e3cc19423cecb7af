"""Attacks that servers of this kind have let through, row by row.

Each docstring quotes the row: where it was found, and the request that shows it. Every request must
be refused with S3's error, and nothing may have changed. Rows about features that do not exist yet
(policies, users, forms, locks, console) have no test yet. One that no request can show is not here
either: that signatures are compared in constant time (s3s 659).
"""

import contextlib
import hashlib
from base64 import b64encode
from datetime import timedelta

import pytest
from check import MIB, body_of, etag, keys_of, new_upload, pattern
from conftest import new_bucket_name
from daemon import SECRET_KEY
from sigv4 import STREAMING, STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER, UNSIGNED, amz_time, encode
from wire import Closed, head, path_of, xml

GARBAGE = "0123456789abcdef" * 4


@pytest.fixture
def world(s3, bucket):
    """A bucket with one object; afterwards it must be exactly as it was."""
    s3.put_object(Bucket=bucket, Key="victim", Body=b"precious", Metadata={"a": "1"})
    before = s3.head_object(Bucket=bucket, Key="victim")
    yield bucket
    assert keys_of(s3, bucket) == ["victim"]
    assert body_of(s3, bucket, "victim") == b"precious"
    after = s3.head_object(Bucket=bucket, Key="victim")
    assert [before[n] for n in ("ETag", "LastModified", "Metadata")] == [
        after[n] for n in ("ETag", "LastModified", "Metadata")
    ]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.fixture
def upload(s3, world):
    """An upload of `victim`, that must have no parts afterwards."""
    id = new_upload(s3, world, "victim")
    yield id
    assert "Parts" not in s3.list_parts(Bucket=world, Key="victim", UploadId=id)
    s3.abort_multipart_upload(Bucket=world, Key="victim", UploadId=id)


def targets(bucket: str, upload: str) -> list[str]:
    """PUT of the object, of a new one, and of a part."""
    part = f"{path_of(bucket, 'victim')}?partNumber=1&uploadId={encode(upload)}"
    return [path_of(bucket, "victim"), path_of(bucket, "new"), part]


@pytest.mark.parametrize("payload", [STREAMING, STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER])
def test_streamed_put_with_a_garbage_signature(raw, world, upload, payload):
    """MinIO CVE-2025-31489; SeaweedFS PR 7954, 2180: `STREAMING-UNSIGNED-PAYLOAD-TRAILER` PUT with a valid key id
    and a garbage signature; a signed-chunk PUT whose signatures nobody checks."""
    trailer = None if payload == STREAMING else {"x-amz-checksum-crc32": "AAAAAA=="}
    for target in targets(world, upload):
        headers, body = raw.signer.streaming(
            "PUT", target, {"host": raw.host}, [b"x"], payload=payload, trailer=trailer
        )
        headers["authorization"] = headers["authorization"].rpartition("=")[0] + "=" + GARBAGE
        assert raw.send("PUT", target, headers, body).refusal == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("payload", [STREAMING, STREAMING_TRAILER])
@pytest.mark.parametrize("chunk", [0, 1])
def test_signed_chunks_with_garbage_signatures(raw, world, upload, payload, chunk):
    """MinIO CVE-2025-31489; SeaweedFS PR 7954, 2180: `STREAMING-UNSIGNED-PAYLOAD-TRAILER` PUT with a valid key id
    and a garbage signature; a signed-chunk PUT whose signatures nobody checks."""
    trailer = None if payload == STREAMING else {"x-amz-checksum-crc32": "AAAAAA=="}
    for target in targets(world, upload):
        answer = raw.stream(
            target, [b"x"], payload=payload, trailer=trailer, tamper=lambda i, s: GARBAGE if i == chunk else s
        )
        assert answer.refusal == (403, "SignatureDoesNotMatch")


def test_chunks_without_any_signature(raw, world, upload):
    """MinIO CVE-2025-31489; SeaweedFS PR 7954, 2180: a signed-chunk PUT whose signatures nobody checks."""
    for target in targets(world, upload):
        base = {"host": raw.host, "content-encoding": "aws-chunked", "x-amz-decoded-content-length": "1"}
        headers = raw.signer.header("PUT", target, base, payload=STREAMING)
        body = b"1\r\nx\r\n0\r\n\r\n"
        answer = raw.send("PUT", target, headers | {"content-length": str(len(body))}, body)
        assert answer.status in (400, 403) and answer.code in (
            "SignatureDoesNotMatch",
            "IncompleteBody",
            "InvalidRequest",
        )


@pytest.mark.parametrize("payload", [STREAMING_UNSIGNED_TRAILER, STREAMING, UNSIGNED])
@pytest.mark.parametrize(
    "extra",
    [{}, {"x-amz-meta-snowball-auto-extract": "true"}, {"x-amz-decoded-content-length": "1"}],
    ids=["plain", "snowball", "length"],
)
def test_credential_in_the_query_and_no_signature(raw, world, upload, payload, extra):
    """MinIO CVE-2026-41145: the same with no Authorization header and `X-Amz-Credential` in the query, for PUT and
    UploadPart. MinIO CVE-2026-40344: the same with snowball auto-extract."""
    credential = encode(f"{raw.signer.access_key}/{raw.signer.scope(amz_time())}")
    body = b"1\r\nx\r\n0\r\nx-amz-checksum-crc32:jNwdkg==\r\n\r\n"
    for target in targets(world, upload):
        mark = "&" if "?" in target else "?"
        for query in (f"X-Amz-Credential={credential}", f"X-Amz-Credential={credential}&X-Amz-Signature={GARBAGE}"):
            headers = {"x-amz-content-sha256": payload, "content-encoding": "aws-chunked"} | extra
            headers |= {"content-length": str(len(body)), "x-amz-trailer": "x-amz-checksum-crc32"}
            answer = raw.send("PUT", f"{target}{mark}{query}", headers, body)
            assert answer.status in (400, 403)
            assert answer.code in ("AccessDenied", "AuthorizationQueryParametersError", "SignatureDoesNotMatch")


def test_replay_after_15_minutes(raw, world, upload):
    """s3s 771; chimera 491, 492, 499: replay after 15 minutes."""
    for target in targets(world, upload):
        for minutes in (-16, 16):
            answer = raw.request("PUT", target, b"x", date=amz_time(timedelta(minutes=minutes)))
            assert answer.refusal == (403, "RequestTimeTooSkewed")
    for method, target in (("DELETE", path_of(world, "victim")), ("DELETE", f"/{world}")):
        assert raw.request(method, target, date=amz_time(timedelta(minutes=-16))).refusal == (
            403,
            "RequestTimeTooSkewed",
        )


def test_host_left_out_of_the_signed_headers(raw, world, upload):
    """s3s 771; chimera 491, 492, 499: SignedHeaders without host."""
    for target in targets(world, upload):
        headers = raw.signed("PUT", target, b"x", unsigned=["host"])
        answer = raw.send("PUT", target, headers, b"x")
        assert answer.status in (400, 403)
        assert answer.code in ("AccessDenied", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed")


@pytest.mark.parametrize(
    "name", ["x-amz-copy-source", "x-amz-copy-source-range", "x-amz-meta-a", "x-amz-metadata-directive", "x-amz-acl"]
)
def test_amz_header_left_out_of_the_signed_headers(raw, world, upload, name):
    """s3s 771; chimera 491, 492, 499: SignedHeaders ... without a present x-amz-copy-source or other x-amz-*."""
    value = f"/{world}/victim" if name == "x-amz-copy-source" else "bytes=0-1" if name.endswith("range") else "REPLACE"
    for target in targets(world, upload):
        headers = raw.signed("PUT", target) | {name: value}
        answer = raw.send("PUT", target, headers)
        assert answer.status == 403 and answer.code in ("AccessDenied", "SignatureDoesNotMatch")


def test_copy_source_added_to_a_presigned_put(raw, world):
    """s3s 771; chimera 491, 492, 499: SignedHeaders ... without a present x-amz-copy-source or other x-amz-*."""
    target = raw.signer.presign("PUT", path_of(world, "new"), {"host": raw.host})
    headers = {"content-length": "0", "x-amz-copy-source": f"/{world}/victim"}
    answer = raw.send("PUT", target, headers)
    assert answer.status == 403 and answer.code in ("AccessDenied", "SignatureDoesNotMatch")


@pytest.mark.parametrize("size", [1, 1000, 300_000])
def test_body_other_than_its_declared_hash(raw, world, upload, size):
    """s3s 771; chimera 491, 492, 499: body differs from x-amz-content-sha256."""
    for target in targets(world, upload):
        headers = raw.signed("PUT", target, pattern(size, 1))
        assert raw.send("PUT", target, headers, pattern(size, 2)).refusal == (400, "XAmzContentSHA256Mismatch")


def test_delete_document_other_than_its_declared_hash(raw, world):
    """s3s 771; chimera 491, 492, 499: body differs from x-amz-content-sha256."""
    target, signed = f"/{world}?delete", b"<Delete><Object><Key>nobody</Key></Object></Delete>"
    sent = signed.replace(b"nobody", b"victim")
    md5 = {"content-md5": b64encode(hashlib.md5(sent).digest()).decode()}
    headers = raw.signed("POST", target, signed, md5)
    assert raw.send("POST", target, headers, sent).refusal == (400, "XAmzContentSHA256Mismatch")


@pytest.mark.parametrize("payload", [STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER])
def test_wrong_trailing_checksum(raw, world, upload, payload):
    """s3s 775: wrong trailing checksum: must be BadDigest, and no object."""
    for target in targets(world, upload):
        answer = raw.stream(target, [pattern(70_000)], payload=payload, trailer={"x-amz-checksum-crc32": "AAAAAA=="})
        assert answer.refusal == (400, "BadDigest")


def test_url_presigned_for_get_used_otherwise(raw, world):
    """s3rver 659; rustfs 5368: a URL presigned for GET used for PUT."""
    target = raw.signer.presign("GET", path_of(world, "victim"), {"host": raw.host})
    assert raw.send("GET", target, {}).status == 200
    for method in ("PUT", "DELETE"):
        answer = raw.send(method, target, {"content-length": "1"}, b"x")
        assert answer.refusal == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("at", range(0, 64, 7))
def test_one_bit_of_a_presigned_signature_flipped(raw, world, at):
    """s3rver 659; rustfs 5368: one bit of the signature flipped."""
    target = raw.signer.presign("PUT", path_of(world, "victim"), {"host": raw.host})
    start, _, signature = target.rpartition("=")
    signature = signature[:at] + f"{int(signature[at], 16) ^ 1:x}" + signature[at + 1 :]
    answer = raw.send("PUT", f"{start}={signature}", {"content-length": "1"}, b"x")
    assert answer.refusal == (403, "SignatureDoesNotMatch")


def test_presigned_for_more_than_7_days(raw, world):
    """s3rver 659; rustfs 5368: expiry over 7 days."""
    for expires in (604_801, 10**9, 2**63, 2**64 + 60):
        answer = raw.presigned("PUT", path_of(world, "victim"), b"x", expires=expires)
        assert answer.refusal == (400, "AuthorizationQueryParametersError")


@pytest.mark.parametrize("up", ["..", "%2e%2e", "%2E%2E", ".%2e", "..%2f..", "%2e%2e%2f%2e%2e", "..%5c", "..;"])
def test_dots_in_the_path_are_part_of_the_key(raw, s3, bucket, second_bucket, up):
    """SeaweedFS CVE-2026-54917, CVE-2026-55874: `/a/../b/k`, `%2e%2e`, `..` in the copy source: keys are bytes,
    never paths."""
    s3.put_object(Bucket=second_bucket, Key="k", Body=b"precious")
    target = f"/{bucket}/{up}/{second_bucket}/k"
    key = (
        target.removeprefix(f"/{bucket}/")
        .replace("%2e", ".")
        .replace("%2E", ".")
        .replace("%2f", "/")
        .replace("%5c", "\\")
    )
    assert raw.request("GET", target).refusal == (404, "NoSuchKey")
    assert raw.request("DELETE", target).status == 204
    assert raw.request("PUT", target, b"mine").status == 200
    assert keys_of(s3, bucket) == [key]
    assert keys_of(s3, second_bucket) == ["k"] and body_of(s3, second_bucket, "k") == b"precious"


@pytest.mark.parametrize("bucket_name", ["..", "%2e%2e", ".", "%2e", "%2e%2e%2fetc", "..%2f..", "a%2fb", "%00", "%5c"])
def test_dots_are_no_bucket(raw, world, bucket_name):
    """SeaweedFS CVE-2026-54917, CVE-2026-55874: `/a/../b/k`, `%2e%2e`, `..` in the copy source: keys are bytes,
    never paths."""
    for method, target in (
        ("PUT", f"/{bucket_name}"),
        ("GET", f"/{bucket_name}/{world}/victim"),
        ("DELETE", f"/{bucket_name}/k"),
    ):
        answer = raw.request(method, target)
        assert answer.status in (400, 404)
        assert answer.code in ("InvalidBucketName", "NoSuchBucket", "InvalidURI", "NoSuchKey")


@pytest.mark.parametrize(
    "source", ["{b}/../{o}/k", "{b}/%2e%2e/{o}/k", "../{o}/k", "/{b}/..%2f{o}%2fk", "%2e%2e/{o}/k", "./{o}/k"]
)
def test_dots_in_the_copy_source(raw, s3, bucket, second_bucket, source):
    """SeaweedFS CVE-2026-54917, CVE-2026-55874: `/a/../b/k`, `%2e%2e`, `..` in the copy source: keys are bytes,
    never paths."""
    s3.put_object(Bucket=second_bucket, Key="k", Body=b"secret")
    headers = {"x-amz-copy-source": source.format(b=bucket, o=second_bucket)}
    answer = raw.request("PUT", path_of(bucket, "stolen"), headers=headers)
    assert answer.refusal in [
        (404, "NoSuchKey"),
        (404, "NoSuchBucket"),
        (400, "InvalidArgument"),
        (400, "InvalidBucketName"),
    ]
    assert keys_of(s3, bucket) == []


def test_backslashes_and_climbing_keys_stay_in_their_bucket(raw, s3, bucket, second_bucket):
    """RustFS GHSA-f4vq-9ffr-m8m3; MinIO CVE-2023-28433: a tar member `../victim/x`; a backslash in a key."""
    s3.put_object(Bucket=second_bucket, Key="x", Body=b"precious")
    keys = [
        f"..\\{second_bucket}\\x",
        f"../{second_bucket}/x",
        f"\\..\\..\\{second_bucket}\\x",
        f"/../{second_bucket}/x",
    ]
    for key in keys:
        assert raw.request("PUT", path_of(bucket, key), b"mine").status == 200
    assert keys_of(s3, bucket) == sorted(keys)
    assert keys_of(s3, second_bucket) == ["x"] and body_of(s3, second_bucket, "x") == b"precious"


INTERNAL = {
    "x-minio-source-replication-request": "true",
    "x-minio-source-mtime": "2001-01-01T00:00:00Z",
    "x-minio-source-etag": "00000000000000000000000000000000",
    "x-minio-internal-force": "true",
    "x-rustfs-internal": "true",
    "x-rustfs-source-replication-request": "true",
    "x-amz-user-agent": "internal",
    "x-forwarded-for": "127.0.0.1",
    "x-real-ip": "127.0.0.1",
    "forwarded": "for=127.0.0.1;host=localhost",
    "x-forwarded-user": "root",
    "x-remote-user": "root",
    "x-original-url": "/-/live",
    "x-rewrite-url": "/-/live",
    "x-http-method-override": "DELETE",
}


def test_internal_headers_give_no_rights(raw, world, upload):
    """MinIO CVE-2026-34204; RustFS GHSA-6r96-hmgc-726c, GHSA-fc6g-2gcp-2qrq: clients that send internal,
    replication or identity headers; X-Forwarded-For deciding the source IP."""
    for target in targets(world, upload):
        for method in ("GET", "PUT", "DELETE"):
            body = {"content-length": "0"} if method == "PUT" else {}
            assert raw.send(method, target, INTERNAL | body).refusal == (403, "AccessDenied")


def test_internal_headers_of_a_signed_request_mean_nothing(raw, s3, bucket):
    """MinIO CVE-2026-34204; RustFS GHSA-6r96-hmgc-726c, GHSA-fc6g-2gcp-2qrq: clients that send internal,
    replication or identity headers; X-Forwarded-For deciding the source IP."""
    assert raw.request("PUT", path_of(bucket, "k"), b"v", INTERNAL).status == 200
    got = s3.head_object(Bucket=bucket, Key="k")
    assert got["ETag"] == etag(b"v") and got["LastModified"].year > 2001 and got["Metadata"] == {}


@pytest.mark.parametrize("payload", [STREAMING, STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER])
@pytest.mark.parametrize("length", [None, "", "x", "-1", "18446744073709551616"])
def test_aws_chunked_without_a_length(raw, world, upload, payload, length):
    """versitygw GHSA-v2ch-c8v8-fgr7; Ceph 72669, CVE-2020-12059: aws-chunked without a length; an empty copy
    source; broken tagging XML: no crash."""
    body = b"1\r\nx\r\n0\r\n\r\n"
    for target in targets(world, upload):
        base = {"host": raw.host, "content-encoding": "aws-chunked"}
        base |= {"x-amz-decoded-content-length": length} if length is not None else {}
        headers = raw.signer.header("PUT", target, base, payload=payload)
        answer = raw.send("PUT", target, headers | {"content-length": str(len(body))}, body)
        assert answer.status in (400, 411)
        assert answer.code in ("MissingContentLength", "InvalidArgument", "InvalidRequest", "IncompleteBody")


def test_empty_copy_source(raw, world, upload):
    """versitygw GHSA-v2ch-c8v8-fgr7; Ceph 72669, CVE-2020-12059: aws-chunked without a length; an empty copy
    source; broken tagging XML: no crash."""
    for target in targets(world, upload):
        for source in ("", "/", "//", "?", "?versionId=", "%00", "/?versionId=null"):
            answer = raw.request("PUT", target, headers={"x-amz-copy-source": source})
            assert answer.status in (400, 404)
            assert answer.code in (
                "InvalidArgument",
                "InvalidBucketName",
                "NoSuchBucket",
                "NoSuchKey",
                "InvalidRequest",
            )


def test_broken_tagging_document(raw, world):
    """versitygw GHSA-v2ch-c8v8-fgr7; Ceph 72669, CVE-2020-12059: aws-chunked without a length; an empty copy
    source; broken tagging XML: no crash."""
    for body in (b"<Tagging>", b"", b"\xff" * 1000, b"<Tagging><TagSet><Tag></Tag></TagSet></Tagging>"):
        for target in (f"/{world}?tagging", f"{path_of(world, 'victim')}?tagging"):
            assert raw.request("PUT", target, body).status in (400, 501)


def test_huge_xml_body(raw, world, upload):
    """MinIO CVE-2018-1000538; s3s 390, 709: a huge XML body; a huge form field; a chunk that declares 4 GiB."""
    complete = f"{path_of(world, 'victim')}?uploadId={encode(upload)}"
    for target, start in ((f"/{world}?delete", b"<Delete>"), (complete, b"<CompleteMultipartUpload>")):
        given = {"content-length": str(200 * MIB), "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
        headers = raw.signed("POST", target, headers=given, payload=UNSIGNED)
        with raw.connect() as wire:
            wire.send_or_closed(head("POST", target, headers) + start + b"<a>" * MIB)
            assert wire.response("POST").status == 400


@pytest.mark.parametrize("payload", [STREAMING, STREAMING_UNSIGNED_TRAILER])
def test_aws_chunk_that_declares_4_gib(raw, world, upload, payload):
    """MinIO CVE-2018-1000538; s3s 390, 709: a huge XML body; a huge form field; a chunk that declares 4 GiB."""
    for target in targets(world, upload):
        for declared in ("FFFFFFFF", "100000000", "FFFFFFFFFFFFFFFF"):
            base = {"host": raw.host, "content-encoding": "aws-chunked", "x-amz-decoded-content-length": "10"}
            headers = raw.signer.header("PUT", target, base, payload=payload)
            extension = f";chunk-signature={GARBAGE}" if payload == STREAMING else ""
            body = f"{declared}{extension}\r\n".encode() + b"x" * 1000
            with raw.connect() as wire:
                wire.send(head("PUT", target, headers | {"content-length": str(len(body))}) + body)
                answer = wire.response("PUT")
                assert answer.status in (400, 403) and answer.code


def test_idle_and_half_sent_heads(raw, world):
    """MinIO CVE-2022-31028; Ceph CVE-2019-3821: idle and half-sent heads that use up descriptors."""
    with contextlib.ExitStack() as stack:
        for index in range(600):
            wire = stack.enter_context(raw.connect())
            if index % 2:
                wire.send(b"PUT /%s/victim HTTP/1.1\r\nHost: x\r\nContent-Le" % world.encode())
        for _ in range(5):
            assert raw.request("GET", path_of(world, "victim")).body == b"precious"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nContent-Length: 100\r\n",
        b"Transfer-Encoding:\tchunked\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding: chunked\nContent-Length: 4\r\n",
        b"Transfer-Encoding\t: chunked\r\nContent-Length: 4\r\n",
    ],
    ids=["length+chunked", "chunked+length", "two lengths", "tab", "bare lf", "tab in name"],
)
def test_request_smuggling(raw, world, lines):
    """sozu 726 and the field at large: Content-Length with Transfer-Encoding, two Content-Lengths, `chunked` with a
    tab, bare LF, DOCTYPE and entities in XML."""
    target = path_of(world, "victim")
    hidden = head("DELETE", target, raw.signed("DELETE", target))
    outer = head(
        "PUT",
        path_of(world, "new"),
        raw.signer.header("PUT", path_of(world, "new"), {"host": raw.host}, payload=UNSIGNED),
    )
    with raw.connect() as wire:
        wire.send_or_closed(outer[:-2] + lines + b"\r\n0\r\n\r\n" + hidden)
        with contextlib.suppress(Closed):
            assert wire.response("PUT").status in (400, 411, 501)
        wire.assert_closed()


def test_doctype_and_entities_in_xml(raw, world):
    """sozu 726 and the field at large: Content-Length with Transfer-Encoding, two Content-Lengths, `chunked` with a
    tab, bare LF, DOCTYPE and entities in XML."""
    for doctype in ('<!DOCTYPE d [<!ENTITY v "victim">]>', '<!DOCTYPE d SYSTEM "file:///etc/passwd">', "<!DOCTYPE d>"):
        body = f"{doctype}<Delete><Object><Key>victim</Key></Object><Object><Key>&v;</Key></Object></Delete>".encode()
        md5 = {"content-md5": b64encode(hashlib.md5(body).digest()).decode()}
        assert raw.request("POST", f"/{world}?delete", body, md5).refusal == (400, "MalformedXML")


def test_anonymous_conditions_tell_nothing(raw, s3, world):
    """MinIO CVE-2024-36107: anonymous conditional requests as an oracle of existence and dates."""
    conditions = [
        {"if-match": "*"}, {"if-match": etag(b"precious")}, {"if-none-match": "*"},
        {"if-none-match": etag(b"precious")}, {"if-modified-since": "Fri, 01 Jan 2100 00:00:00 GMT"},
        {"if-unmodified-since": "Mon, 01 Jan 2001 00:00:00 GMT"}, {"range": "bytes=1000000-"},
    ]  # fmt: skip
    places = [path_of(world, "victim"), path_of(world, "nothing"), "/t-never-made/k"]
    for method in ("GET", "HEAD"):
        for condition in [{}, *conditions]:
            answers = [raw.send(method, place, condition) for place in places]
            for answer in answers:
                assert answer.status == 403 and (method == "HEAD" or answer.code == "AccessDenied")
                assert not {"etag", "last-modified", "content-range", "x-amz-meta-a"} & {n for n, _ in answer.headers}
            shapes = {tuple(n for n, _ in answer.headers) for answer in answers}
            assert len(shapes) == 1


@pytest.mark.parametrize(
    "inject", ["%0d%0aX-Injected:%201", "%0aX-Injected:%201", "%0d", "%00", "a%0d%0a%0d%0a<script>"]
)
@pytest.mark.parametrize(
    "parameter",
    ["content-type", "content-language", "expires", "cache-control", "content-disposition", "content-encoding"],
)
def test_line_ends_through_response_parameters(raw, world, parameter, inject):
    """Ceph CVE-2021-3524; CVE-2020-10753: CR and LF through response-* parameters or CORS ExposeHeader."""
    target = f"{path_of(world, 'victim')}?response-{parameter}={inject}"
    for answer in (raw.request("GET", target), raw.presigned("GET", target)):
        assert "x-injected" not in answer
        assert answer.status in (200, 400)
        if answer.status == 400:
            assert answer.code in ("InvalidArgument", "InvalidRequest")
        else:
            assert answer.body == b"precious"


def test_line_ends_through_metadata_and_keys(raw, s3, bucket):
    """Ceph CVE-2021-3524; CVE-2020-10753: CR and LF through response-* parameters or CORS ExposeHeader. The same
    through what was stored, and through what an error repeats."""
    key = "a\r\nX-Injected: 1\r\n\r\n<b>"
    assert raw.request("PUT", path_of(bucket, key), b"v").status == 200
    for answer in (
        raw.request("GET", path_of(bucket, key)),
        raw.request("GET", path_of(bucket, key) + "x"),
        raw.request("POST", path_of(bucket, key) + "?uploads"),
    ):
        assert "x-injected" not in answer
        if answer.body.startswith(b"<?xml"):
            xml(answer.body)
    upload = xml(raw.request("POST", path_of(bucket, key) + "?uploads").body).findtext("UploadId")
    assert "\r" not in upload and "\n" not in upload


def test_secrets_are_in_no_log_and_no_open_endpoint(raw, server, world):
    """RustFS GHSA-h956-rh7x-ppgj, GHSA-8cm2-h255-v749; MinIO CVE-2023-28432: fixed tokens, default credentials off
    loopback, secrets in logs or in an unauthenticated endpoint. (Off loopback: test_daemon.)"""
    wrong = raw.signed("GET", path_of(world, "victim"))
    wrong["authorization"] = wrong["authorization"][:-1] + "x"
    refused = raw.send("GET", path_of(world, "victim"), wrong)
    assert refused.status in (400, 403)
    open_places = [raw.send("GET", path, {}) for path in ("/-/live", "/-/ready", "/-/", "/-/metrics", "/-/config")]
    for answer in [refused, *open_places]:
        assert SECRET_KEY.encode() not in answer.body + repr(answer.headers).encode()
    if server:
        assert SECRET_KEY not in server.log


def test_fixed_tokens_are_no_credentials(raw, world):
    """RustFS GHSA-h956-rh7x-ppgj, GHSA-8cm2-h255-v749; MinIO CVE-2023-28432: fixed tokens, default credentials off
    loopback, secrets in logs or in an unauthenticated endpoint."""
    for token in ("Bearer rustfs rpc", "Bearer minioadmin", "rustfs rpc", "Basic cnVzdGZzYWRtaW46cnVzdGZzc2VjcmV0"):
        assert raw.send("GET", path_of(world, "victim"), {"authorization": token}).status in (400, 403)
    for path in ("/minio/admin/v3/info", "/rustfs/admin/v3/info", "/minio/bootstrap/v1/verify", "/rustfs/rpc/read"):
        assert raw.send("POST", path, {"content-length": "0"}).status in (400, 403, 404, 405)


def test_object_of_html_is_not_made_script_by_the_server(raw, s3, bucket):
    """RustFS GHSA-v9fg-3cr2-277j: an HTML object served from the console's origin; reflected CORS origin with
    credentials."""
    s3.put_object(Bucket=bucket, Key="x.html", Body=b"<script>", ContentType="text/html")
    answer = raw.request("GET", path_of(bucket, "x.html"), headers={"origin": "https://evil.example"})
    assert answer.get("access-control-allow-origin") is None
    assert answer.get("access-control-allow-credentials") is None
    name = new_bucket_name()
    error = raw.request("GET", f"/{name}/<script>alert(1)</script>".replace("<", "%3C").replace(">", "%3E"))
    assert error["content-type"] == "application/xml" and b"<script>" not in error.body


# --- what an attack on this server found


def test_an_absolute_target_cannot_name_another_host_than_was_signed(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    target = path_of(bucket, "k")
    for host in ("other.example", "x" + raw.host, bucket + "." + raw.host):
        with raw.connect() as wire:
            wire.send(head("GET", f"http://{host}{target}", raw.signed("GET", target)))
            assert wire.response().status == 400


def test_a_parameter_that_comes_twice_is_refused(raw, bucket):
    """Signatures sort parameters by value too; a server that takes the first reads what was signed as the second."""
    answer = raw.request("GET", f"/{bucket}?list-type=2&prefix=a&prefix=b")
    assert answer.refusal == (400, "InvalidArgument")


@pytest.mark.parametrize("name", ["a b", "a:b", "é", "a\r\nb", "a/b", "(a)", ""])
def test_metadata_in_a_presigned_query_has_the_name_of_a_header(raw, s3, bucket, name):
    """Stored under another name, it could be in no response: it would be lost without a word."""
    for target in (path_of(bucket, "k"), f"{path_of(bucket, 'k')}?uploads"):
        method = "POST" if target.endswith("?uploads") else "PUT"
        hoisted = f"{target}{'&' if '?' in target else '?'}{encode('x-amz-meta-' + name)}=1"
        assert raw.presigned(method, hoisted).refusal == (400, "InvalidArgument")
    assert keys_of(s3, bucket) == []
    target = f"{path_of(bucket, 'k')}?x-amz-meta-a.b_c%7E=1"
    assert raw.presigned("PUT", target, b"v").status == 200
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"a.b_c~": "1"}


# Every subresource that S3 has had for buckets or objects, and parameters that go with some.
BUCKET_SUBRESOURCES = """abac accelerate acl analytics cors delete encryption intelligent-tiering inventory lifecycle
    location logging metadataConfiguration metadataInventoryTable metadataJournalTable metadataTable metrics notification
    object-lock ownershipControls policy policyStatus publicAccessBlock replication requestPayment session tagging uploads
    versioning versions website""".split()
OBJECT_SUBRESOURCES = """acl annotation append attributes encryption legal-hold renameObject restore retention select
    tagging torrent uploads""".split()
PARTICULARS = "partNumber=1 uploadId= uploadId=x versionId= versionId=null versionId=abc select-type=2".split()
SUBRESOURCES = sorted({*BUCKET_SUBRESOURCES, *OBJECT_SUBRESOURCES, *PARTICULARS})
REFUSED = {(400, "InvalidArgument"), (400, "InvalidRequest"), (404, "NoSuchUpload"), (404, "NoSuchVersion"),
           (404, "NoSuchBucket"), (405, "MethodNotAllowed"), (501, "NotImplemented")}  # fmt: skip


def test_the_subresources_are_those_that_the_sdk_has(s3):
    named = set()
    for operation in s3.meta.service_model.operation_names:
        query = s3.meta.service_model.operation_model(operation).http["requestUri"].partition("?")[2]
        named |= {pair.partition("=")[0] for pair in query.split("&") if pair}
    assert named - {"list-type"} <= {name.partition("=")[0] for name in SUBRESOURCES}


@pytest.mark.parametrize("query", SUBRESOURCES)
def test_a_subresource_is_never_taken_for_nothing_on_a_bucket(raw, bucket, query):
    """`DELETE /bucket?abac` would be the end of the bucket, `PUT /bucket?abac` would make one."""
    name = new_bucket_name()
    assert raw.request("PUT", f"/{name}?{query}").refusal in REFUSED
    assert raw.request("HEAD", f"/{name}").status == 404
    answer = raw.request("DELETE", f"/{bucket}?{query}")
    # What was never set is removed already.
    assert answer.refusal in REFUSED or answer.status == 204 and query in BUCKET_SUBRESOURCES
    assert raw.request("HEAD", f"/{bucket}").status == 200


@pytest.mark.parametrize("query", SUBRESOURCES)
def test_a_subresource_is_never_taken_for_nothing_on_an_object(raw, world, query):
    target = f"{path_of(world, 'victim')}?{query}"
    assert raw.request("PUT", target, b"other").refusal in REFUSED
    if query != "versionId=null":
        assert raw.request("DELETE", target).refusal in REFUSED


def test_two_subresources_conflict(raw, world):
    for method, target in (
        ("DELETE", f"/{world}?policy&abac"),
        ("GET", f"/{world}?versioning&acl"),
        ("PUT", f"{path_of(world, 'victim')}?tagging&acl"),
        ("POST", f"/{world}?delete&acl"),
    ):
        answer = raw.request(method, target)
        assert answer.refusal == (400, "InvalidArgument")
        assert b"Conflicting query string parameters: a" in answer.body


def test_a_subresource_has_its_own_methods(raw, world):
    for method, target in (
        ("PUT", f"/{world}?location"), ("DELETE", f"/{world}?uploads"), ("DELETE", f"/{world}?versions"),
        ("GET", f"/{world}?delete"), ("DELETE", f"{path_of(world, 'victim')}?uploads"),
        ("HEAD", f"/{world}?acl"), ("HEAD", f"{path_of(world, 'victim')}?acl"),
    ):  # fmt: skip
        answer = raw.request(method, target)
        assert answer.status == 405 and (method == "HEAD" or answer.code == "MethodNotAllowed")


@pytest.mark.parametrize("query", ["x-id=Any", "foo=bar", "x-client=1&v=2", "prefix=acl", "ACL", "max-keys=1"])
def test_parameters_that_are_not_of_s3_are_passed_over(raw, s3, query):
    name = new_bucket_name()
    target = path_of(name, "k")
    assert raw.request("PUT", f"/{name}?{query}").status == 200
    assert raw.request("PUT", f"{target}?{query}", b"v").status == 200
    assert raw.request("GET", f"{target}?{query}").body == b"v"
    assert raw.request("HEAD", f"{target}?{query}").status == 200
    assert xml(raw.request("GET", f"/{name}?{query}").body).tag == "ListBucketResult"
    assert raw.request("DELETE", f"{target}?{query}").status == 204
    assert raw.request("DELETE", f"/{name}?{query}").status == 204


@pytest.mark.parametrize("header", ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"])
@pytest.mark.parametrize("owner", ["123456789012", "", "0" * 64])
def test_a_bucket_of_another_owner_than_expected_is_denied(raw, s3, world, upload, header, owner):
    victim, id = path_of(world, "victim"), encode(upload)
    expected = {header: owner}
    for method, target, more in (
        ("GET", f"/{world}", {}), ("GET", f"/{world}?location", {}), ("HEAD", f"/{world}", {}),
        ("DELETE", f"/{world}", {}), ("GET", f"/{world}?uploads", {}), ("GET", f"/{world}?acl", {}),
        ("GET", victim, {}), ("HEAD", victim, {}), ("PUT", victim, {}), ("DELETE", victim, {}),
        ("PUT", path_of(world, "new"), {"x-amz-copy-source": victim}), ("POST", f"{victim}?uploads", {}),
        ("PUT", f"{victim}?partNumber=1&uploadId={id}", {}), ("GET", f"{victim}?uploadId={id}", {}),
        ("PUT", f"{victim}?partNumber=1&uploadId={id}", {"x-amz-copy-source": victim}),
        ("DELETE", f"{victim}?uploadId={id}", {}), ("POST", f"{victim}?uploadId={id}", {}),
    ):  # fmt: skip
        answer = raw.request(method, target, headers=expected | more)
        assert answer.status == 403 and (method == "HEAD" or answer.code == "AccessDenied")
    delete = b"<Delete><Object><Key>victim</Key></Object></Delete>"
    md5 = {"content-md5": b64encode(hashlib.md5(delete).digest()).decode()}
    assert raw.request("POST", f"/{world}?delete", delete, md5 | expected).refusal == (403, "AccessDenied")
    assert raw.presigned("PUT", f"{victim}?{header}={owner}", b"x").refusal == (403, "AccessDenied")


def test_a_bucket_of_the_expected_owner_is_served(s3, world):
    owner = s3.list_buckets()["Owner"]["ID"]
    assert s3.get_object(Bucket=world, Key="victim", ExpectedBucketOwner=owner)["Body"].read() == b"precious"
    s3.head_bucket(Bucket=world, ExpectedBucketOwner=owner)
    s3.copy_object(
        Bucket=world, Key="copy", CopySource={"Bucket": world, "Key": "victim"},
        ExpectedBucketOwner=owner, ExpectedSourceBucketOwner=owner,
    )  # fmt: skip
    s3.delete_object(Bucket=world, Key="copy", ExpectedBucketOwner=owner)


def send_in_lines(raw, method: str, target: str, headers: dict, name: str, body: bytes = b"", **how):
    """Signs field `name` as one list, and sends each of its values on a line of its own: the signature is the same."""
    signed = raw.signed(method, target, body, headers, **how)
    values = signed.pop(name).split(",")
    request = head(method, target, signed)[:-2] + b"".join(f"{name}: {v}\r\n".encode() for v in values) + b"\r\n"
    with raw.connect() as wire:
        wire.send_or_closed(request + body)
        return wire.response(method)


TWICE = {
    "x-amz-copy-source": "/{bucket}/victim,{bucket}/other", "x-amz-metadata-directive": "COPY,REPLACE",
    "x-amz-storage-class": "STANDARD,STANDARD", "x-amz-acl": "private,private", "x-amz-website-redirect-location": "/a,/b",
    "content-type": "text/plain,text/html", "content-encoding": "gzip,br", "cache-control": "no-cache,no-store",
    "content-disposition": "inline,attachment", "content-language": "de,en", "expires": "0,1",
    "if-match": '"a","b"', "if-none-match": "*,*", "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg==,1B2M2Y8AsgTpgAmY7PhCfg==",
    "x-amz-expected-bucket-owner": "1,2", "x-amz-checksum-crc32": "AAAAAA==,AAAAAA==",
}  # fmt: skip


@pytest.mark.parametrize("name", TWICE)
def test_a_field_that_comes_twice_is_refused(raw, world, name):
    """Signed as one list, acted on as one of its values: one signature would cover two requests."""
    headers = {name: TWICE[name].format(bucket=world)}
    for method, target in (("PUT", path_of(world, "victim")), ("POST", f"{path_of(world, 'victim')}?uploads")):
        assert send_in_lines(raw, method, target, headers, name).refusal == (400, "InvalidArgument")


@pytest.mark.parametrize(
    "name,value",
    [
        ("range", "bytes=0-0,bytes=1-1"), ("if-match", f"{etag(b'precious')},x"), ("if-none-match", '"a","b"'),
        ("if-range", '"a","b"'), ("x-amz-checksum-mode", "ENABLED,ENABLED"),
    ],
)  # fmt: skip
def test_a_field_of_a_read_that_comes_twice_is_refused(raw, world, name, value):
    answer = send_in_lines(raw, "GET", path_of(world, "victim"), {name: value}, name)
    assert answer.refusal == (400, "InvalidArgument")


def test_a_field_and_a_signed_parameter_of_its_name_are_a_repetition(raw, world):
    target = f"{path_of(world, 'victim')}?x-amz-copy-source={world}/victim"
    answer = raw.presigned("PUT", target, headers={"x-amz-copy-source": f"/{world}/other"})
    assert answer.refusal == (400, "InvalidArgument")


def test_user_metadata_that_comes_twice_is_joined_as_it_is_signed(raw, s3, bucket):
    answer = send_in_lines(raw, "PUT", path_of(bucket, "k"), {"x-amz-meta-a": "1,2"}, "x-amz-meta-a", b"v")
    assert answer.status == 200
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"a": "1,2"}


CUSTOMER_KEY = {
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": b64encode(b"0" * 32).decode(),
    "x-amz-server-side-encryption-customer-key-md5": b64encode(hashlib.md5(b"0" * 32).digest()).decode(),
}
UNBUILT = [CUSTOMER_KEY, {"x-amz-server-side-encryption": "AES256"}, {"x-amz-tagging": "a=b"}, {"x-amz-acl": "public-read"},
           {"if-none-match": "*"}, {"if-match": "*"}]  # fmt: skip


@pytest.mark.parametrize("headers", UNBUILT, ids=lambda headers: next(iter(headers)))
def test_a_part_is_not_stored_as_if_a_header_were_not_there(raw, world, upload, headers):
    """A part that was to be encrypted with the client's key would lie there in clear."""
    target = f"{path_of(world, 'victim')}?partNumber=1&uploadId={encode(upload)}"
    assert raw.request("PUT", target, b"secret", headers).refusal == (501, "NotImplemented")
    copy = {"x-amz-copy-source": path_of(world, "victim")}
    assert raw.request("PUT", target, headers=headers | copy).refusal == (501, "NotImplemented")


def test_a_key_for_an_object_that_is_not_encrypted_is_refused(raw, world, upload):
    victim = path_of(world, "victim")
    assert raw.request("GET", victim, headers=CUSTOMER_KEY).refusal == (400, "InvalidRequest")
    assert raw.request("HEAD", victim, headers=CUSTOMER_KEY).status == 400
    source = {n.replace("x-amz-", "x-amz-copy-source-"): v for n, v in CUSTOMER_KEY.items()}
    source["x-amz-copy-source"] = victim
    for target in targets(world, upload)[1:]:
        assert raw.request("PUT", target, headers=source).refusal == (400, "InvalidRequest")
