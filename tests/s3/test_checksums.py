"""x-amz-checksum-*: every algorithm as header and trailer, and over the parts of an upload."""

import hashlib
import zlib
from base64 import b64encode

import pytest
import xxhash
from awscrt import checksums as crt
from check import MIB, PART, body_of, complete, exists, new_upload, pattern, put_part, refused
from sigv4 import STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER, encode
from wire import path_of, xml_text

ALGORITHMS = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crt.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
    "SHA512": lambda data: hashlib.sha512(data).digest(),
    "MD5": lambda data: hashlib.md5(data).digest(),
    "XXHASH64": lambda data: xxhash.xxh64(data).digest(),
    "XXHASH3": lambda data: xxhash.xxh3_64(data).digest(),
    "XXHASH128": lambda data: xxhash.xxh3_128(data).digest(),
}
BOTO = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]
FULL_OBJECT = ["CRC32", "CRC32C", "CRC64NVME"]
COMPOSITE = [name for name in ALGORITHMS if name != "CRC64NVME"]
# A body that stays in the commit record, and one that goes to an extent of several blocks.
SIZES = [0, 1000, 300_001]
BAD_TRAILER = ("MalformedTrailerError", "InvalidRequest", "IncompleteBody")


def header(algorithm: str) -> str:
    return f"x-amz-checksum-{algorithm.lower()}"


def checksum(algorithm: str, data: bytes) -> str:
    return b64encode(ALGORITHMS[algorithm](data)).decode()


def assert_stored(raw, target: str, algorithm: str, body: bytes) -> None:
    for method in ("GET", "HEAD"):
        answer = raw.request(method, target, headers={"x-amz-checksum-mode": "ENABLED"})
        assert answer.status == 200
        assert answer[header(algorithm)] == checksum(algorithm, body)
        assert answer["x-amz-checksum-type"] == "FULL_OBJECT"
        assert method == "HEAD" or answer.body == body


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum_in_a_header_is_verified_stored_and_returned(raw, bucket, algorithm, size):
    target, body = path_of(bucket, "k"), pattern(size)
    answer = raw.request("PUT", target, body, {header(algorithm): checksum(algorithm, body)})
    assert (answer.status, answer[header(algorithm)]) == (200, checksum(algorithm, body))
    assert answer["x-amz-checksum-type"] == "FULL_OBJECT"
    assert_stored(raw, target, algorithm, body)


@pytest.mark.parametrize("payload", [STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum_in_a_trailer_is_verified_stored_and_returned(raw, bucket, algorithm, payload):
    target, body = path_of(bucket, "k"), pattern(200_003)
    trailer = {header(algorithm): checksum(algorithm, body)}
    chunks = [body[:65_536], body[65_536:131_072], body[131_072:]]
    answer = raw.stream(target, chunks, payload=payload, trailer=trailer)
    assert (answer.status, answer[header(algorithm)]) == (200, checksum(algorithm, body))
    assert_stored(raw, target, algorithm, body)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_checksum_in_a_header_is_a_bad_digest(raw, s3, bucket, algorithm, size):
    wrong = {header(algorithm): checksum(algorithm, b"another body")}
    assert raw.request("PUT", path_of(bucket, "k"), pattern(size), wrong).refusal == (400, "BadDigest")
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("payload", [STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_checksum_in_a_trailer_is_a_bad_digest(raw, s3, bucket, algorithm, payload):
    for size in (500, 200_003):
        wrong = {header(algorithm): checksum(algorithm, b"another body")}
        answer = raw.stream(path_of(bucket, "k"), [pattern(size)], payload=payload, trailer=wrong)
        assert answer.refusal == (400, "BadDigest")
        assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("value", ["", "abc", "!!!!", "AAAA", "AAAAAAAAAAA="])
def test_a_checksum_that_is_none_is_an_invalid_request(raw, s3, bucket, value):
    answer = raw.request("PUT", path_of(bucket, "k"), b"body", {"x-amz-checksum-crc32": value})
    assert answer.refusal == (400, "InvalidRequest")
    assert not exists(s3, bucket, "k")


def test_two_checksums_are_an_invalid_request(raw, s3, bucket):
    both = {header(name): checksum(name, b"body") for name in ("CRC32", "SHA256")}
    assert raw.request("PUT", path_of(bucket, "k"), b"body", both).refusal == (400, "InvalidRequest")
    assert not exists(s3, bucket, "k")


def test_a_checksum_is_returned_only_when_asked(raw, bucket):
    target = path_of(bucket, "k")
    raw.request("PUT", target, b"body", {header("SHA1"): checksum("SHA1", b"body")})
    answer = raw.request("GET", target)
    assert header("SHA1") not in answer and "x-amz-checksum-type" not in answer


def test_a_range_does_not_carry_the_checksum_of_the_whole(raw, bucket):
    """boto3 would hold the range against it."""
    target = path_of(bucket, "k")
    raw.request("PUT", target, b"body", {header("CRC32"): checksum("CRC32", b"body")})
    answer = raw.request("GET", target, headers={"range": "bytes=1-2", "x-amz-checksum-mode": "ENABLED"})
    assert (answer.status, answer.body) == (206, b"od") and header("CRC32") not in answer


@pytest.mark.parametrize("span", ["bytes=0-", "bytes=0-3", "bytes=0-100", "bytes=-9"])
def test_a_range_of_the_whole_carries_its_checksum(raw, bucket, span):
    target = path_of(bucket, "k")
    raw.request("PUT", target, b"body", {header("CRC32"): checksum("CRC32", b"body")})
    answer = raw.request("GET", target, headers={"range": span, "x-amz-checksum-mode": "ENABLED"})
    assert (answer.status, answer.body, answer[header("CRC32")]) == (206, b"body", checksum("CRC32", b"body"))


def test_a_part_does_not_carry_a_composite_checksum(s3, raw, bucket):
    """It would be the checksum of the parts' checksums, even of a single part."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"p", ChecksumAlgorithm="SHA256")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts)
    enabled = {"x-amz-checksum-mode": "ENABLED"}
    assert raw.request("GET", path_of(bucket, "k"), headers=enabled)[header("SHA256")].endswith("-1")
    for target, headers in (("?partNumber=1", {}), ("", {"range": "bytes=0-"})):
        answer = raw.request("GET", path_of(bucket, "k") + target, headers=enabled | headers)
        assert (answer.status, answer.body) == (206, b"p") and header("SHA256") not in answer


@pytest.mark.parametrize("payload", [STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER])
@pytest.mark.parametrize("sent", [None, "SHA256"])
def test_a_trailer_other_than_announced_is_refused(raw, s3, bucket, payload, sent):
    body = pattern(1000)
    trailer = {header(sent): checksum(sent, body)} if sent else {}
    headers = {"x-amz-trailer": "x-amz-checksum-crc32"}
    answer = raw.stream(path_of(bucket, "k"), [body], headers, payload=payload, trailer=trailer)
    assert answer.status == 400 and answer.code in BAD_TRAILER
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("payload", [STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER])
@pytest.mark.parametrize("announced", ["", "x-amz-checksum-crc32"])
@pytest.mark.parametrize("extra", ["x-amz-checksum-sha1", "x-amz-meta-a", "x-other"])
def test_a_trailer_that_was_not_announced_is_refused(raw, s3, bucket, payload, announced, extra):
    """A checksum among them would be passed over, and its client think that it was held against the body."""
    trailer = {announced: "NLGLMg=="} if announced else {}
    answer = raw.stream(
        path_of(bucket, "k"), [b"body"], {"x-amz-trailer": announced}, payload=payload, trailer=trailer | {extra: "AAAA"}
    )
    assert answer.refusal == (400, "MalformedTrailerError")
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("payload", [STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER])
def test_a_trailer_besides_the_header_of_its_name_is_refused(raw, s3, bucket, payload):
    checksum = {"x-amz-checksum-crc32": "NLGLMg=="}
    headers = {"x-amz-trailer": ""} | checksum
    answer = raw.stream(path_of(bucket, "k"), [b"body"], headers, payload=payload, trailer=checksum)
    assert answer.refusal == (400, "MalformedTrailerError")
    assert not exists(s3, bucket, "k")


def test_a_trailer_with_a_malformed_value_is_refused(raw, s3, bucket):
    answer = raw.stream(
        path_of(bucket, "k"), [b"body"], payload=STREAMING_UNSIGNED_TRAILER, trailer={"x-amz-checksum-crc32": "zz"}
    )
    assert answer.status == 400 and answer.code in BAD_TRAILER
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("algorithm", BOTO)
def test_boto3_puts_and_validates(s3, bucket, algorithm):
    body = pattern(100_000)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, ChecksumAlgorithm=algorithm)
    assert put[f"Checksum{algorithm}"] == checksum(algorithm, body)
    # boto3 compares what it reads with the checksum.
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == body and got[f"Checksum{algorithm}"] == checksum(algorithm, body)


def test_boto3s_default_is_stored_as_crc32(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head["ChecksumCRC32"], head["ChecksumType"]) == (checksum("CRC32", b"body"), "FULL_OBJECT")


def test_listings_name_the_algorithm(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"body", ChecksumAlgorithm="SHA256")
    for page in (s3.list_objects_v2(Bucket=bucket), s3.list_objects(Bucket=bucket)):
        assert page["Contents"][0]["ChecksumAlgorithm"] == ["SHA256"]
        assert page["Contents"][0]["ChecksumType"] == "FULL_OBJECT"


def test_a_copy_keeps_the_checksum(s3, bucket):
    s3.put_object(Bucket=bucket, Key="from", Body=b"body", ChecksumAlgorithm="SHA1")
    s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/from")
    assert s3.head_object(Bucket=bucket, Key="to", ChecksumMode="ENABLED")["ChecksumSHA1"] == checksum("SHA1", b"body")


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_copy_can_be_given_another_checksum(s3, bucket, size):
    s3.put_object(Bucket=bucket, Key="from", Body=pattern(size))
    answer = s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/from", ChecksumAlgorithm="SHA256")
    assert answer["CopyObjectResult"]["ChecksumSHA256"] == checksum("SHA256", pattern(size))
    assert "ChecksumSHA256" in s3.head_object(Bucket=bucket, Key="to", ChecksumMode="ENABLED")


# --- multipart

BODIES = [pattern(PART, 1), pattern(1001, 2)]
WHOLE = b"".join(BODIES)


def raw_upload(raw, bucket: str, headers: dict[str, str]) -> str:
    answer = raw.request("POST", f"{path_of(bucket, 'k')}?uploads", headers=headers)
    assert answer.status == 200, answer
    return xml_text(answer.body, "UploadId")


def raw_parts(raw, bucket: str, upload: str, algorithm: str) -> str:
    """Uploads BODIES with checksums; returns the document that completes them."""
    parts = ""
    for number, body in enumerate(BODIES, 1):
        value = checksum(algorithm, body)
        target = f"{path_of(bucket, 'k')}?partNumber={number}&uploadId={encode(upload)}"
        answer = raw.request("PUT", target, body, {header(algorithm): value})
        assert (answer.status, answer[header(algorithm)]) == (200, value)
        parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{answer['etag']}</ETag>"
        parts += f"<Checksum{algorithm}>{value}</Checksum{algorithm}></Part>"
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"


@pytest.mark.parametrize("algorithm", COMPOSITE)
def test_a_composite_checksum_is_over_the_parts_checksums(raw, bucket, algorithm):
    upload = raw_upload(raw, bucket, {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": "COMPOSITE"})
    document = raw_parts(raw, bucket, upload, algorithm)
    answer = raw.request("POST", f"{path_of(bucket, 'k')}?uploadId={encode(upload)}", document.encode())
    expected = checksum(algorithm, b"".join(ALGORITHMS[algorithm](body) for body in BODIES)) + "-2"
    assert answer.status == 200
    assert xml_text(answer.body, f"Checksum{algorithm}") == expected
    assert xml_text(answer.body, "ChecksumType") == "COMPOSITE"
    head = raw.request("HEAD", path_of(bucket, "k"), headers={"x-amz-checksum-mode": "ENABLED"})
    assert (head[header(algorithm)], head["x-amz-checksum-type"]) == (expected, "COMPOSITE")


@pytest.mark.parametrize("algorithm", FULL_OBJECT)
def test_a_full_object_checksum_is_over_all_bytes(raw, bucket, algorithm):
    upload = raw_upload(raw, bucket, {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": "FULL_OBJECT"})
    document = raw_parts(raw, bucket, upload, algorithm)
    target = f"{path_of(bucket, 'k')}?uploadId={encode(upload)}"
    wrong = {header(algorithm): checksum(algorithm, b"other"), "x-amz-checksum-type": "FULL_OBJECT"}
    assert raw.request("POST", target, document.encode(), wrong).refusal == (400, "BadDigest")
    assert raw.request("HEAD", path_of(bucket, "k")).status == 404
    expected = checksum(algorithm, WHOLE)
    right = {header(algorithm): expected, "x-amz-checksum-type": "FULL_OBJECT"}
    answer = raw.request("POST", target, document.encode(), right)
    assert (answer.status, xml_text(answer.body, f"Checksum{algorithm}")) == (200, expected)
    head = raw.request("HEAD", path_of(bucket, "k"), headers={"x-amz-checksum-mode": "ENABLED"})
    assert (head[header(algorithm)], head["x-amz-checksum-type"]) == (expected, "FULL_OBJECT")


@pytest.mark.parametrize("algorithm", BOTO)
def test_boto3_uploads_parts_with_checksums(s3, bucket, algorithm):
    created = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm)
    assert created["ChecksumAlgorithm"] == algorithm
    assert created["ChecksumType"] == ("FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE")
    upload = created["UploadId"]
    parts = [
        put_part(s3, bucket, "k", upload, n, body, ChecksumAlgorithm=algorithm) for n, body in enumerate(BODIES, 1)
    ]
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)
    assert listed["ChecksumAlgorithm"] == algorithm and listed["ChecksumType"] == created["ChecksumType"]
    assert [p[f"Checksum{algorithm}"] for p in listed["Parts"]] == [checksum(algorithm, body) for body in BODIES]
    uploads = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [(u["ChecksumAlgorithm"], u["ChecksumType"]) for u in uploads] == [(algorithm, created["ChecksumType"])]
    done = complete(s3, bucket, "k", upload, parts)
    assert done["ChecksumType"] == created["ChecksumType"]
    assert body_of(s3, bucket, "k", ChecksumMode="ENABLED") == WHOLE


def test_the_transfer_manager_uploads_with_its_default_checksum(s3, bucket, tmp_path):
    body = pattern(12 * MIB)
    (tmp_path / "file").write_bytes(body)
    s3.upload_file(str(tmp_path / "file"), bucket, "k")
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert "ChecksumCRC32" in head
    assert body_of(s3, bucket, "k") == body


@pytest.mark.parametrize(
    "algorithm,kind", [("CRC64NVME", "COMPOSITE")] + [(a, "FULL_OBJECT") for a in COMPOSITE if a not in FULL_OBJECT]
)
def test_a_type_that_the_algorithm_does_not_have_is_an_invalid_request(raw, bucket, algorithm, kind):
    headers = {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": kind}
    answer = raw.request("POST", f"{path_of(bucket, 'k')}?uploads", headers=headers)
    assert answer.refusal == (400, "InvalidRequest")


def test_an_algorithm_that_s3_does_not_have_is_an_invalid_request(raw, bucket):
    answer = raw.request("POST", f"{path_of(bucket, 'k')}?uploads", headers={"x-amz-checksum-algorithm": "CRC7"})
    assert answer.refusal == (400, "InvalidRequest")


def test_a_part_with_another_algorithm_than_its_upload_is_refused(s3, bucket):
    upload = new_upload(s3, bucket, "k", ChecksumAlgorithm="SHA256")
    with refused(400, "InvalidRequest"):
        put_part(s3, bucket, "k", upload, 1, b"body", ChecksumAlgorithm="SHA1")


def test_a_composite_completion_wants_every_parts_checksum(s3, bucket):
    upload = new_upload(s3, bucket, "k", ChecksumAlgorithm="SHA256")
    part = put_part(s3, bucket, "k", upload, 1, b"body", ChecksumAlgorithm="SHA256")
    with refused(400, "InvalidRequest"):
        complete(s3, bucket, "k", upload, [{"PartNumber": 1, "ETag": part["ETag"]}])
    assert not exists(s3, bucket, "k")
    complete(s3, bucket, "k", upload, [part])


def test_a_completion_with_a_wrong_part_checksum_is_an_invalid_part(s3, bucket):
    upload = new_upload(s3, bucket, "k", ChecksumAlgorithm="SHA256")
    part = put_part(s3, bucket, "k", upload, 1, b"body", ChecksumAlgorithm="SHA256")
    with refused(400, "InvalidPart"):
        complete(s3, bucket, "k", upload, [part | {"ChecksumSHA256": checksum("SHA256", b"other")}])
    assert not exists(s3, bucket, "k")


def test_a_completion_with_another_size_than_the_object_has_is_refused(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    part = put_part(s3, bucket, "k", upload, 1, b"body")
    with refused(400, "InvalidRequest"):
        complete(s3, bucket, "k", upload, [part], MpuObjectSize=5)
    assert not exists(s3, bucket, "k")
    complete(s3, bucket, "k", upload, [part], MpuObjectSize=4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_part_with_a_wrong_checksum_is_a_bad_digest_and_not_listed(raw, s3, bucket, algorithm):
    upload = raw_upload(raw, bucket, {"x-amz-checksum-algorithm": algorithm})
    target = f"{path_of(bucket, 'k')}?partNumber=1&uploadId={encode(upload)}"
    wrong = {header(algorithm): checksum(algorithm, b"other")}
    assert raw.request("PUT", target, b"body", wrong).refusal == (400, "BadDigest")
    answer = raw.stream(target, [b"body"], payload=STREAMING_UNSIGNED_TRAILER, trailer=wrong)
    assert answer.refusal == (400, "BadDigest")
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)
