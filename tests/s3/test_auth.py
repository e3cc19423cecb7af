"""Who is asking: SigV4 in headers, queries and chunks, SigV2, and each refusal's code."""

import hmac
import zlib
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from urllib.parse import urlsplit

import pytest
from check import MIB, body_of, exists, keys_of, pattern, refused
from conftest import client_for
from daemon import ACCESS_KEY, SECRET_KEY
from sigv4 import STREAMING, STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER, UNSIGNED, Seed, Signer, amz_time, encode
from wire import Raw, head, path_of

STREAMS = [STREAMING, STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER]
MINUTES_16 = timedelta(minutes=16)
MINUTES_14 = timedelta(minutes=14)


def other(raw: Raw, **changes) -> Raw:
    """The same endpoint with another signer."""
    signer = Signer(**({"access_key": ACCESS_KEY, "secret_key": SECRET_KEY} | changes))
    return Raw(raw.endpoint, signer)


def flipped(text: str, at: int) -> str:
    """`text` with one bit of one hex digit changed."""
    return text[:at] + f"{int(text[at], 16) ^ 1:x}" + text[at + 1 :]


@pytest.fixture
def stored(s3, bucket) -> str:
    """The target of an object with body `secret`."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret")
    return path_of(bucket, "k")


# --- in the Authorization header


def test_a_signed_request_is_served(raw, stored):
    assert raw.request("GET", stored).body == b"secret"


@pytest.mark.parametrize("payload", [None, UNSIGNED], ids=["hashed", "unsigned"])
@pytest.mark.parametrize("size", [0, 1000, 200_000])
def test_a_body_is_stored_hashed_or_unsigned(raw, s3, bucket, payload, size):
    assert raw.request("PUT", path_of(bucket, "k"), pattern(size), payload=payload).status == 200
    assert body_of(s3, bucket, "k") == pattern(size)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-2", "x"])
def test_any_region_signs(raw, stored, region):
    assert other(raw, region=region).request("GET", stored).status == 200


def test_an_unknown_access_key(raw, stored):
    answer = other(raw, access_key="AKIANOBODY").request("GET", stored)
    assert answer.refusal == (403, "InvalidAccessKeyId")


def test_a_wrong_secret(raw, stored):
    answer = other(raw, secret_key="wrong").request("GET", stored)
    assert answer.refusal == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("at", [0, 31, 63])
def test_one_bit_of_the_signature_flipped(raw, stored, at):
    headers = raw.signed("GET", stored)
    start, _, signature = headers["authorization"].rpartition("=")
    headers["authorization"] = f"{start}={flipped(signature, at)}"
    assert raw.send("GET", stored, headers).refusal == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    "change", [lambda s: s[:-1], lambda s: s + "0", lambda s: "", lambda s: "z" * 64, lambda s: "é"]
)
def test_a_signature_of_another_shape(raw, stored, change):
    headers = raw.signed("GET", stored)
    start, _, signature = headers["authorization"].rpartition("=")
    headers["authorization"] = f"{start}={change(signature)}"
    answer = raw.send("GET", stored, headers)
    assert answer.refusal in [(403, "SignatureDoesNotMatch"), (400, "AuthorizationHeaderMalformed")]


def test_a_signature_is_for_one_method_path_query_and_header(raw, s3, bucket, stored):
    s3.put_object(Bucket=bucket, Key="other", Body=b"other")
    headers = raw.signed("GET", stored, headers={"x-amz-meta-a": "1"})
    for method, target, change in (
        ("DELETE", stored, {}),
        ("HEAD", stored, {}),
        ("GET", path_of(bucket, "other"), {}),
        ("GET", stored + "?versionId=null", {}),
        ("GET", stored, {"x-amz-meta-a": "2"}),
        ("GET", stored, {"host": "elsewhere.example"}),
    ):
        answer = raw.send(method, target, headers | change)
        assert answer.status == 403 and (method == "HEAD" or answer.code == "SignatureDoesNotMatch"), (method, target)
    assert exists(s3, bucket, "k")


@pytest.mark.parametrize("offset", [MINUTES_14, -MINUTES_14])
def test_14_minutes_of_skew_are_accepted(raw, stored, offset):
    assert raw.request("GET", stored, date=amz_time(offset)).status == 200


@pytest.mark.parametrize("offset", [MINUTES_16, -MINUTES_16, timedelta(days=-1), timedelta(days=400)])
def test_more_than_15_minutes_of_skew(raw, s3, bucket, stored, offset):
    assert raw.request("GET", stored, date=amz_time(offset)).refusal == (403, "RequestTimeTooSkewed")
    answer = raw.request("PUT", path_of(bucket, "late"), b"v", date=amz_time(offset))
    assert answer.refusal == (403, "RequestTimeTooSkewed")
    assert not exists(s3, bucket, "late")


def test_a_body_other_than_its_hash(raw, s3, bucket):
    for size in (10, 200_000):
        headers = raw.signed("PUT", path_of(bucket, "k"), pattern(size, 1))
        answer = raw.send("PUT", path_of(bucket, "k"), headers, pattern(size, 2))
        assert answer.refusal == (400, "XAmzContentSHA256Mismatch")
        assert not exists(s3, bucket, "k")


def test_a_payload_hash_that_is_none(raw, s3, bucket):
    for payload in ("nonsense", "UNSIGNED", "0" * 63, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"):
        answer = raw.request("PUT", path_of(bucket, "k"), b"v", payload=payload)
        assert answer.status in (400, 501) and answer.code in ("InvalidArgument", "InvalidRequest", "NotImplemented")
    assert not exists(s3, bucket, "k")


def test_a_missing_payload_hash(raw, stored):
    headers = raw.signed("GET", stored)
    del headers["x-amz-content-sha256"]
    answer = raw.send("GET", stored, headers)
    assert answer.status in (400, 403) and answer.code in ("InvalidRequest", "SignatureDoesNotMatch", "AccessDenied")


def test_a_missing_date(raw, stored):
    headers = raw.signed("GET", stored)
    del headers["x-amz-date"]
    assert raw.send("GET", stored, headers).refusal == (403, "AccessDenied")


def test_the_date_header_will_do_in_place_of_x_amz_date(raw, stored):
    """SigV4: when x-amz-date is absent, the time is that of Date."""
    now = datetime.now(timezone.utc)
    date = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": raw.host, "date": format_datetime(now, usegmt=True), "x-amz-content-sha256": UNSIGNED}
    signature = raw.signer.signature("GET", stored, headers, sorted(headers), UNSIGNED, date)
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={raw.signer.access_key}/{raw.signer.scope(date)},"
        f"SignedHeaders={';'.join(sorted(headers))},Signature={signature}"
    )
    assert raw.send("GET", stored, headers).status == 200


def malformed(authorization: str) -> dict[str, str]:
    credential = authorization.split("Credential=")[1].split(",")[0]
    key, date, region, service, _ = credential.split("/")
    return {
        "no credential": authorization.replace(f"Credential={credential},", ""),
        "no signed headers": authorization.replace("SignedHeaders=", "Headers="),
        "no signature": authorization.split(",Signature=")[0],
        "short credential": authorization.replace(credential, f"{key}/{date}/{region}"),
        "empty credential": authorization.replace(credential, ""),
        "other service": authorization.replace(credential, f"{key}/{date}/{region}/ec2/aws4_request"),
        "other terminator": authorization.replace(credential, f"{key}/{date}/{region}/{service}/aws5_request"),
        "other day": authorization.replace(credential, f"{key}/20010101/{region}/{service}/aws4_request"),
        "no day": authorization.replace(credential, f"{key}/today/{region}/{service}/aws4_request"),
    }


@pytest.mark.parametrize("case", malformed("AWS4-HMAC-SHA256 Credential=a/b/c/d/e,SignedHeaders=h,Signature=s"))
def test_a_malformed_authorization(raw, stored, case):
    headers = raw.signed("GET", stored)
    headers["authorization"] = malformed(headers["authorization"])[case]
    assert raw.send("GET", stored, headers).refusal == (400, "AuthorizationHeaderMalformed")


@pytest.mark.parametrize(
    "value", ["Basic dXNlcjpwYXNz", "Bearer x", "AWS4-HMAC-SHA1 Credential=x", "AWS4-HMAC-SHA256", "x", ""]
)
def test_an_authorization_of_another_kind(raw, stored, value):
    answer = raw.send("GET", stored, {"authorization": value})
    assert answer.refusal in [(400, "InvalidArgument"), (403, "AccessDenied"), (400, "AuthorizationHeaderMalformed")]


def test_spaces_in_the_authorization_are_free(raw, stored):
    headers = raw.signed("GET", stored)
    headers["authorization"] = headers["authorization"].replace(",", ",   ")
    assert raw.send("GET", stored, headers).status == 200


def test_runs_of_spaces_in_a_signed_value_count_as_one(raw, stored):
    assert raw.request("GET", stored, headers={"x-amz-meta-a": "  several   spaces  "}).status == 200


@pytest.mark.parametrize("name", ["host", "x-amz-date", "x-amz-meta-a"])
def test_a_header_that_must_be_signed_and_is_not(raw, s3, bucket, name):
    target = path_of(bucket, "k")
    headers = raw.signed("PUT", target, b"v", {"x-amz-meta-a": "1"}, unsigned=[name])
    answer = raw.send("PUT", target, headers, b"v")
    assert answer.status in (400, 403)
    assert answer.code in ("AccessDenied", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed")
    assert not exists(s3, bucket, "k")


def test_a_signed_header_that_is_absent(raw, stored):
    headers = raw.signed("GET", stored, headers={"x-amz-meta-a": "1"})
    del headers["x-amz-meta-a"]
    assert raw.send("GET", stored, headers).refusal == (403, "SignatureDoesNotMatch")


def test_a_query_is_signed_in_any_order_and_escaping(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="dir/a b", Body=b"")
    for query in ("prefix=dir/&list-type=2", "list-type=2&prefix=dir%2F", "list-type=2&prefix=dir%2f&delimiter="):
        assert raw.request("GET", f"/{bucket}?{query}").status == 200, query


# --- in the query


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_a_presigned_request_is_served(raw, bucket, stored, method):
    assert raw.presigned(method, stored).status in (200, 204)


@pytest.mark.parametrize("expires", [1, 604_800])
def test_an_expiry_of_1_second_to_7_days(raw, stored, expires):
    assert raw.presigned("GET", stored, expires=expires).status == 200


@pytest.mark.parametrize("expires", [604_801, 0, -1, "x", "", "1e3", 2**64])
def test_an_expiry_outside_that(raw, stored, expires):
    answer = raw.presigned("GET", stored, expires=expires)
    assert answer.refusal in [(400, "AuthorizationQueryParametersError"), (403, "AccessDenied")]
    if expires != 0:
        assert answer.status == 400


def test_a_presigned_request_after_its_expiry(raw, stored):
    answer = raw.presigned("GET", stored, date=amz_time(timedelta(hours=-2)), expires=3600)
    assert answer.refusal == (403, "AccessDenied") and b"expired" in answer.body
    assert raw.presigned("GET", stored, date=amz_time(timedelta(hours=-2)), expires=8000).status == 200


def test_a_presigned_request_from_the_future(raw, stored):
    answer = raw.presigned("GET", stored, date=amz_time(MINUTES_16))
    assert answer.status == 403 and answer.code in ("AccessDenied", "RequestTimeTooSkewed")


def test_a_presigned_request_with_a_wrong_secret_or_key(raw, stored):
    assert other(raw, secret_key="x").presigned("GET", stored).refusal == (403, "SignatureDoesNotMatch")
    assert other(raw, access_key="x").presigned("GET", stored).refusal == (403, "InvalidAccessKeyId")


@pytest.mark.parametrize(
    "override",
    [{"Algorithm": "AWS4-HMAC-SHA1"}, {"Credential": "x"}, {"Credential": f"{ACCESS_KEY}/20010101/us-east-1/s3/aws4_request"},
     {"Credential": f"{ACCESS_KEY}/{amz_time()[:8]}/us-east-1/iam/aws4_request"}, {"Date": "yesterday"}, {"Expires": "soon"}],
)  # fmt: skip
def test_a_malformed_presigned_parameter(raw, stored, override):
    assert raw.presigned("GET", stored, **override).refusal == (400, "AuthorizationQueryParametersError")


@pytest.mark.parametrize("name", ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"])
def test_a_missing_presigned_parameter(raw, stored, name):
    target = raw.signer.presign("GET", stored, {"host": raw.host})
    path, _, query = target.partition("?")
    rest = "&".join(item for item in query.split("&") if not item.startswith(f"X-Amz-{name}="))
    answer = raw.send("GET", f"{path}?{rest}", {})
    assert answer.refusal in [(400, "AuthorizationQueryParametersError"), (403, "AccessDenied")]


def test_header_and_query_authentication_together(raw, stored):
    target = raw.signer.presign("GET", stored, {"host": raw.host})
    answer = raw.send("GET", target, raw.signed("GET", target))
    assert answer.status == 400 and answer.code in ("InvalidArgument", "InvalidRequest")


def test_an_unsigned_amz_header_on_a_presigned_request(raw, s3, bucket):
    """What was not signed may not say what is stored."""
    target = raw.signer.presign("PUT", path_of(bucket, "k"), {"host": raw.host})
    headers = {"content-length": "1", "x-amz-meta-injected": "1"}
    answer = raw.send("PUT", target, headers, b"v")
    assert answer.status == 403 and answer.code in ("AccessDenied", "SignatureDoesNotMatch")
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("sent", [None, b"by url", b"other"])
def test_a_checksum_in_a_presigned_query_is_passed_over(raw, s3, bucket, sent):
    """Who presigns cannot know the body: the JavaScript SDK signs the checksum of none. One in a header counts."""
    target = path_of(bucket, "k") + "?x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32&x-id=PutObject"
    headers = None
    if sent is not None:
        headers = {"x-amz-checksum-crc32": b64encode(zlib.crc32(sent).to_bytes(4, "big")).decode()}
    answer = raw.presigned("PUT", target, b"by url", headers)
    if sent == b"other":
        assert answer.refusal == (400, "BadDigest") and not exists(s3, bucket, "k")
    else:
        assert answer.status == 200 and body_of(s3, bucket, "k") == b"by url"


# --- in the chunks


def streamed(raw, target: str, chunks: list[bytes], payload: str, **how):
    trailer = None
    if payload != STREAMING:
        value = b64encode(zlib.crc32(b"".join(chunks)).to_bytes(4, "big")).decode()
        trailer = {"x-amz-checksum-crc32": value}
    return raw.stream(target, chunks, payload=payload, trailer=trailer, **how)


CHUNKINGS = {
    "empty": [],
    "one small": [b"body"],
    "one of 64 KiB": [pattern(65_536)],
    "many small": [pattern(8192, i) for i in range(30)],
    "uneven": [pattern(65_536), pattern(65_537), pattern(17)],
    "one of 1 MiB": [pattern(MIB)],
}


@pytest.mark.parametrize("payload", STREAMS)
@pytest.mark.parametrize("chunks", CHUNKINGS.values(), ids=CHUNKINGS)
def test_a_streamed_body_is_stored_without_its_framing(raw, s3, bucket, payload, chunks):
    assert streamed(raw, path_of(bucket, "k"), chunks, payload).status == 200
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"".join(chunks)
    assert "ContentEncoding" not in got


def test_aws_chunked_is_taken_from_the_content_encoding(raw, s3, bucket):
    for given, stored in (("aws-chunked,gzip", "gzip"), ("gzip, aws-chunked", "gzip"), ("aws-chunked", None)):
        raw.stream(path_of(bucket, "k"), [b"v"], {"content-encoding": given})
        assert s3.head_object(Bucket=bucket, Key="k").get("ContentEncoding") == stored


def test_a_streamed_body_without_the_content_encoding_is_decoded_all_the_same(raw, s3, bucket):
    """minio-go leaves the header out."""
    headers, body = raw.signer.streaming("PUT", path_of(bucket, "k"), {"host": raw.host}, [b"body"])
    headers = {n: v for n, v in headers.items() if n != "content-encoding"}
    date, payload = headers["x-amz-date"], headers["x-amz-content-sha256"]
    signer = raw.signer
    plain = {n: v for n, v in headers.items() if n in ("host", "x-amz-decoded-content-length")}
    signed = signer.header("PUT", path_of(bucket, "k"), plain, payload=payload, date=date)
    seed = Seed(signer.signing_key(date), date, signer.scope(date), signed["authorization"].rpartition("=")[2])
    first = seed.chunk(seed.signature, b"body")
    last = seed.chunk(first, b"")
    body = f"4;chunk-signature={first}\r\nbody\r\n0;chunk-signature={last}\r\n\r\n".encode()
    answer = raw.send("PUT", path_of(bucket, "k"), signed | {"content-length": str(len(body))}, body)
    assert answer.status == 200
    assert body_of(s3, bucket, "k") == b"body"


@pytest.mark.parametrize("payload", [STREAMING, STREAMING_TRAILER])
@pytest.mark.parametrize("wrong", [0, 1, 2, 3], ids=["first", "second", "third", "closing"])
def test_a_wrong_chunk_signature(raw, s3, bucket, payload, wrong):
    chunks = [pattern(65_536, i) for i in range(3)]
    answer = streamed(
        raw, path_of(bucket, "k"), chunks, payload, tamper=lambda i, s: flipped(s, 5) if i == wrong else s
    )
    assert answer.refusal == (403, "SignatureDoesNotMatch")
    assert not exists(s3, bucket, "k")


def test_a_wrong_trailer_signature(raw, s3, bucket):
    answer = streamed(
        raw, path_of(bucket, "k"), [b"body"], STREAMING_TRAILER, tamper=lambda i, s: flipped(s, 9) if i == 2 else s
    )
    assert answer.refusal == (403, "SignatureDoesNotMatch")
    assert not exists(s3, bucket, "k")


def test_a_missing_trailer_signature(raw, s3, bucket):
    trailer = {"x-amz-checksum-crc32": "NLGLMg=="}
    headers, body = raw.signer.streaming(
        "PUT", path_of(bucket, "k"), {"host": raw.host}, [b"body"], payload=STREAMING_TRAILER, trailer=trailer
    )
    start = body.index(b"x-amz-trailer-signature")
    body = body[:start] + b"\r\n"
    answer = raw.send("PUT", path_of(bucket, "k"), headers | {"content-length": str(len(body))}, body)
    assert answer.status in (400, 403)
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("payload", [STREAMING, STREAMING_TRAILER])
def test_chunks_whose_bytes_were_changed_or_swapped(raw, s3, bucket, payload):
    target = path_of(bucket, "k")
    chunks = [b"A" * 8192, b"B" * 8192]
    trailer = {"x-amz-checksum-crc32": "AAAAAA=="} if payload == STREAMING_TRAILER else None
    headers, body = raw.signer.streaming("PUT", target, {"host": raw.host}, chunks, payload=payload, trailer=trailer)
    for changed in (body.replace(b"AB", b"BB").replace(b"AAAA", b"AAAC", 1), body.replace(b"A", b"B")):
        assert raw.send("PUT", target, headers, changed).refusal == (403, "SignatureDoesNotMatch")
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("payload", STREAMS)
@pytest.mark.parametrize("declared", ["3", "5", "400", "0"])
def test_a_decoded_length_other_than_declared(raw, s3, bucket, payload, declared):
    headers = {"x-amz-decoded-content-length": declared}
    answer = streamed(raw, path_of(bucket, "k"), [b"body"], payload, headers=headers)
    assert answer.status == 400 and answer.code in ("IncompleteBody", "InvalidRequest")
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("payload", STREAMS)
def test_a_stream_signed_with_a_wrong_secret(raw, s3, bucket, payload):
    answer = streamed(other(raw, secret_key="x"), path_of(bucket, "k"), [b"body"], payload)
    assert answer.refusal == (403, "SignatureDoesNotMatch")
    assert not exists(s3, bucket, "k")


FRAMINGS = {
    "no closing chunk": (b"4\r\nbody\r\n", 400),
    "size is no number": (b"zz\r\nbody\r\n0\r\n\r\n", 400),
    "negative size": (b"-4\r\nbody\r\n0\r\n\r\n", 400),
    "size overflows": (b"fffffffffffffffff\r\nbody\r\n0\r\n\r\n", 400),
    "size too large for its data": (b"8\r\nbody\r\n0\r\n\r\n", 400),
    "size too small for its data": (b"3\r\nbody\r\n0\r\n\r\n", 400),
    "bare line feeds": (b"4\nbody\n0\n\n", 400),
    "bytes after the end": (b"4\r\nbody\r\n0\r\n\r\nmore", 400),
    "endless extension": (b"4;" + b"x" * 5000 + b"\r\nbody\r\n0\r\n\r\n", 400),
    "endless size": (b"0" * 5000 + b"4\r\nbody\r\n0\r\n\r\n", 400),
    "endless trailer": (b"4\r\nbody\r\n0\r\nx-amz-checksum-crc32:" + b"A" * 20_000 + b"\r\n\r\n", 400),
    "not framed at all": (b"body", 400),
}


@pytest.mark.parametrize("case", FRAMINGS)
def test_malformed_framing_of_a_stream(raw, s3, bucket, case):
    """Framing under STREAMING-UNSIGNED-PAYLOAD-TRAILER, where no signature would catch it."""
    body, status = FRAMINGS[case]
    target = path_of(bucket, "k")
    base = {"host": raw.host, "content-encoding": "aws-chunked", "x-amz-decoded-content-length": "4"}
    headers = raw.signer.header("PUT", target, base, payload=STREAMING_UNSIGNED_TRAILER)
    answer = raw.send("PUT", target, headers | {"content-length": str(len(body))}, body)
    assert answer.status == status, answer
    assert not exists(s3, bucket, "k")


def test_a_streamed_part(raw, s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    target = f"{path_of(bucket, 'k')}?partNumber=1&uploadId={encode(upload)}"
    for payload in STREAMS:
        assert streamed(raw, target, [pattern(65_536), pattern(900)], payload).status == 200
    (part,) = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"]
    assert part["Size"] == 66_436
    answer = streamed(raw, target, [b"other"], STREAMING, tamper=lambda i, s: flipped(s, 0))
    assert answer.refusal == (403, "SignatureDoesNotMatch")
    (part,) = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"]
    assert part["Size"] == 66_436


# --- nobody


def test_anonymous_requests_are_denied(raw, s3, bucket, stored):
    for method, target in (
        ("GET", "/"),
        ("GET", f"/{bucket}"),
        ("GET", stored),
        ("PUT", path_of(bucket, "new")),
        ("PUT", "/t-anonymous-bucket"),
        ("DELETE", stored),
        ("DELETE", f"/{bucket}"),
        ("POST", f"/{bucket}?delete"),
        ("POST", f"{stored}?uploads"),
        ("GET", "/t-never-made/k"),
    ):
        headers = {"content-length": "0"} if method in ("PUT", "POST") else {}
        assert raw.send(method, target, headers).refusal == (403, "AccessDenied"), (method, target)
    assert raw.send("HEAD", stored, {}).status == 403
    assert keys_of(s3, bucket) == ["k"]


# --- SigV2


@pytest.fixture(scope="module")
def v2(endpoint):
    return client_for(endpoint, signature_version="s3")


def test_sigv2_in_the_header(v2, s3, bucket):
    body = pattern(100_000)
    v2.put_object(Bucket=bucket, Key="a b/ü", Body=body, ContentType="text/x", Metadata={"a": "1", "b": "2"})
    assert body_of(v2, bucket, "a b/ü") == body
    assert [e["Key"] for e in v2.list_objects(Bucket=bucket, Prefix="a b/")["Contents"]] == ["a b/ü"]
    upload = v2.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    part = v2.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    v2.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload=parts)
    v2.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/m")
    v2.delete_object(Bucket=bucket, Key="m")
    assert keys_of(s3, bucket) == ["a b/ü", "c"]


def test_sigv2_in_the_query(endpoint, raw, bucket, stored):
    client = client_for(endpoint, signature_version="s3")
    params = {"Bucket": bucket, "Key": "k", "ResponseContentType": "text/csv"}
    url = urlsplit(client.generate_presigned_url("get_object", Params=params, ExpiresIn=60))
    assert "AWSAccessKeyId=" in url.query
    answer = raw.send("GET", f"{url.path}?{url.query}", {})
    assert (answer.status, answer.body, answer["content-type"]) == (200, b"secret", "text/csv")
    assert raw.send("GET", f"{url.path}x?{url.query}", {}).refusal == (403, "SignatureDoesNotMatch")
    assert raw.send("DELETE", f"{url.path}?{url.query}", {}).refusal == (403, "SignatureDoesNotMatch")
    tampered = url.query.replace("text%2Fcsv", "text%2Fhtml")
    assert tampered != url.query
    assert raw.send("GET", f"{url.path}?{tampered}", {}).refusal == (403, "SignatureDoesNotMatch")


def test_sigv2_in_the_query_signs_the_headers_there(endpoint, s3, raw, bucket):
    """boto3 presigns with Version 2 unless told otherwise, and puts x-amz-* headers into the query."""
    client = client_for(endpoint, signature_version="s3")
    params = {"Bucket": bucket, "Key": "k", "Metadata": {"a": "one two", "b": "+"}, "StorageClass": "STANDARD"}
    url = urlsplit(client.generate_presigned_url("put_object", Params=params, ExpiresIn=60))
    assert "x-amz-meta-a=one%20two" in url.query
    for tampered in (
        url.query.replace("one%20two", "three"),
        url.query.replace("x-amz-meta-b=%2B", "x-amz-meta-c=%2B"),
        url.query + "&x-amz-meta-c=1",
        url.query + f"&x-amz-copy-source={bucket}%2Fk",
    ):
        answer = raw.send("PUT", f"{url.path}?{tampered}", {"content-length": "1"}, b"v")
        assert answer.refusal == (403, "SignatureDoesNotMatch"), tampered
    headers = {"content-length": "1", "x-amz-meta-a": "three"}
    assert raw.send("PUT", f"{url.path}?{url.query}", headers, b"v").refusal == (403, "SignatureDoesNotMatch")
    assert not exists(s3, bucket, "k")
    assert raw.send("PUT", f"{url.path}?{url.query}", {"content-length": "1"}, b"v").status == 200
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"a": "one two", "b": "+"}


def test_sigv2_expired(endpoint, raw, bucket, stored):
    client = client_for(endpoint, signature_version="s3")
    url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=-10))
    answer = raw.send("GET", f"{url.path}?{url.query}", {})
    assert answer.refusal == (403, "AccessDenied") and b"expired" in answer.body


def test_sigv2_with_a_wrong_secret_or_key(endpoint, bucket, stored):
    with refused(403, "SignatureDoesNotMatch"):
        client_for(endpoint, secret_key="x", signature_version="s3").get_object(Bucket=bucket, Key="k")
    with refused(403, "InvalidAccessKeyId"):
        client_for(endpoint, access_key="x", signature_version="s3").get_object(Bucket=bucket, Key="k")


def sigv2_headers(raw, method: str, resource: str, **extra: str) -> dict[str, str]:
    """Authorization of Signature Version 2 for a request whose only x-amz header is the date."""
    date = extra.pop("date", None) or format_datetime(datetime.now(timezone.utc), usegmt=True)
    to_sign = f"{method}\n\n\n\nx-amz-date:{date}\n{resource}"
    digest = hmac.digest(raw.signer.secret_key.encode(), to_sign.encode(), "sha1")
    value = f"AWS {raw.signer.access_key}:{b64encode(digest).decode()}"
    return {"x-amz-date": date, "authorization": value} | extra


def test_sigv2_skew_and_replay(raw, stored):
    assert raw.send("GET", stored, sigv2_headers(raw, "GET", stored)).status == 200
    old = format_datetime(datetime.now(timezone.utc) - MINUTES_16, usegmt=True)
    answer = raw.send("GET", stored, sigv2_headers(raw, "GET", stored, date=old))
    assert answer.refusal == (403, "RequestTimeTooSkewed")


def test_sigv2_signs_a_bucket_with_and_without_a_final_slash(raw, bucket):
    """boto3 asks for `/bucket` and signs `/bucket/`."""
    for resource in (f"/{bucket}", f"/{bucket}/"):
        assert raw.send("GET", f"/{bucket}", sigv2_headers(raw, "GET", resource)).status == 200
    assert raw.send("GET", f"/{bucket}?location", sigv2_headers(raw, "GET", f"/{bucket}/?location")).status == 200
    assert raw.send("GET", f"/{bucket}?location", sigv2_headers(raw, "GET", f"/{bucket}/")).status == 403


def test_sigv2_signs_every_amz_header(raw, s3, bucket):
    target = path_of(bucket, "k")
    headers = sigv2_headers(raw, "PUT", target, **{"x-amz-meta-injected": "1", "content-length": "1"})
    assert raw.send("PUT", target, headers, b"v").refusal == (403, "SignatureDoesNotMatch")
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize(
    "value", ["AWS", "AWS ", "AWS x", f"AWS {ACCESS_KEY}", f"AWS {ACCESS_KEY}:", "AWS :x", "AWS :"]
)
def test_a_malformed_sigv2_authorization(raw, stored, value):
    headers = sigv2_headers(raw, "GET", stored) | {"authorization": value}
    answer = raw.send("GET", stored, headers)
    assert answer.status in (400, 403)
    assert answer.code in (
        "InvalidArgument",
        "AccessDenied",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "InvalidRequest",
    )


def test_a_refused_request_leaves_the_connection_or_closes_it_in_order(raw, stored):
    """A refusal without a body to skip keeps the connection."""
    with raw.connect() as wire:
        for _ in range(3):
            assert wire.request("GET", stored, {"host": raw.host}).status == 403
            assert wire.request("GET", stored, raw.signed("GET", stored)).body == b"secret"
            wire.send(head("GET", stored, other(raw, secret_key="x").signed("GET", stored)))
            assert wire.response().status == 403


@pytest.mark.parametrize("repeated", ["host;host", "host;x-amz-date;host", "host;Host"])
def test_a_name_that_signed_headers_repeat_is_malformed(raw, bucket, repeated):
    """A value of 15 KiB would be hashed a hundred times for a hundred names, before anything is known of the sender."""
    headers = raw.signed("GET", f"/{bucket}")
    headers["authorization"] = headers["authorization"].replace("SignedHeaders=host", f"SignedHeaders={repeated}")
    assert raw.send("GET", f"/{bucket}", headers).refusal == (400, "AuthorizationHeaderMalformed")
