"""PutObject, GetObject, HeadObject, DeleteObject: bytes, headers, metadata, keys."""

import datetime
import hashlib
import uuid
from base64 import b64encode
from email.header import decode_header, make_header
from urllib.parse import unquote_to_bytes

import pytest
from check import MIB, ODD_KEYS, body_of, etag, exists, keys_of, md5, pattern, refused, together
from sigv4 import encode
from wire import path_of, xml_text

# Around the disk's block, the inline threshold, the block of an extent with and without its header, and 1 MiB.
SIZES = [0, 1, 4095, 4096, 4097, 65519, 65520, 65521, 65535, 65536, 65537, 262_144, MIB - 1, MIB, MIB + 1, 8 * MIB]


@pytest.mark.parametrize("size", SIZES)
def test_an_object_comes_back_with_its_bytes_and_md5(s3, bucket, size):
    body = pattern(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert put["ETag"] == etag(body)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == body
    head = s3.head_object(Bucket=bucket, Key="k")
    for answer in (got, head):
        assert answer["ETag"] == etag(body)
        assert answer["ContentLength"] == size
        assert answer["ContentType"] == "binary/octet-stream"
        assert answer["AcceptRanges"] == "bytes"
    (entry,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert (entry["Size"], entry["ETag"], entry["StorageClass"]) == (size, etag(body), "STANDARD")


@pytest.mark.parametrize("first,second", [(10, 100_000), (100_000, 10), (MIB, 0), (0, MIB), (70_000, 70_000)])
def test_an_overwrite_replaces_the_whole_object(s3, bucket, first, second):
    s3.put_object(Bucket=bucket, Key="k", Body=pattern(first, 1), Metadata={"old": "yes"}, ContentType="text/plain")
    s3.put_object(Bucket=bucket, Key="k", Body=pattern(second, 2))
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == pattern(second, 2)
    assert (got["Metadata"], got["ContentType"]) == ({}, "binary/octet-stream")
    assert keys_of(s3, bucket) == ["k"]


def test_last_modified_is_now_and_the_same_everywhere(s3, bucket):
    before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    after = datetime.datetime.now(datetime.timezone.utc)
    head = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert before <= head <= after
    assert s3.get_object(Bucket=bucket, Key="k")["LastModified"] == head
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"][0]["LastModified"]
    assert listed.replace(microsecond=0) == head


def test_a_deleted_object_is_gone(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=pattern(100_000))
    assert s3.delete_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert not exists(s3, bucket, "k")
    assert keys_of(s3, bucket) == []
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k")


def test_deleting_what_is_not_there_succeeds(s3, bucket):
    assert s3.delete_object(Bucket=bucket, Key="never")["ResponseMetadata"]["HTTPStatusCode"] == 204


@pytest.mark.parametrize(
    "header",
    [{"If-Match": '"0123"'}, {"x-amz-if-match-size": "1"},
     {"x-amz-if-match-last-modified-time": "Sat, 01 Jan 2000 00:00:00 GMT"}],
)  # fmt: skip
def test_a_conditional_delete_is_refused_and_deletes_nothing(raw, s3, bucket, header):
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    answer = raw.request("DELETE", path_of(bucket, "k"), headers=header)
    assert answer.refusal == (501, "NotImplemented")
    assert xml_text(answer.body, "Header") == next(iter(header))
    assert body_of(s3, bucket, "k") == b"kept"


def test_a_deleted_key_can_be_written_again(s3, bucket):
    for round in range(3):
        s3.put_object(Bucket=bucket, Key="k", Body=pattern(5000, round))
        assert body_of(s3, bucket, "k") == pattern(5000, round)
        s3.delete_object(Bucket=bucket, Key="k")
        assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("call", ["get_object", "head_object", "delete_object"])
def test_objects_of_a_missing_bucket_are_no_such_bucket(s3, call):
    with refused(404, "404" if call == "head_object" else "NoSuchBucket"):
        getattr(s3, call)(Bucket="t-never-made", Key="k")


def test_user_metadata_comes_back(s3, bucket):
    metadata = {"plain": "value", "Mixed-Case": "Value With Spaces", "empty": "", "x" * 40: "long name"}
    s3.put_object(Bucket=bucket, Key="k", Body=b"v", Metadata=metadata)
    expected = {name.lower(): value for name, value in metadata.items()}
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == expected
    assert s3.get_object(Bucket=bucket, Key="k")["Metadata"] == expected


def test_user_metadata_that_is_not_ascii_comes_back_in_an_encoded_word(raw, s3, bucket):
    """S3 reads header bytes as ISO 8859-1 and returns what is outside ASCII as RFC 2047 has it (S3 user guide,
    "Working with object metadata": its example shows UTF-8 encoded twice)."""
    target = path_of(bucket, "k")
    headers = {"x-amz-meta-city": "Zürich 日本"}
    assert raw.presigned("PUT", target, b"v", headers).status == 200
    value = raw.request("HEAD", target)["x-amz-meta-city"]
    assert value.isascii() and value.startswith("=?UTF-8?")
    assert str(make_header(decode_header(value))).encode("latin-1").decode() == "Zürich 日本"


def test_system_metadata_over_2_kib_is_refused(s3, bucket):
    value = "v" * (2048 - len("Content-Disposition"))
    s3.put_object(Bucket=bucket, Key="k", Body=b"v", ContentDisposition=value)
    assert s3.head_object(Bucket=bucket, Key="k")["ContentDisposition"] == value
    for more in ({"ContentDisposition": value + "v"}, {"ContentDisposition": value, "CacheControl": "no-store"}):
        with refused(400, "MetadataTooLarge"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"v", **more)
        with refused(400, "MetadataTooLarge"):
            s3.create_multipart_upload(Bucket=bucket, Key="k", **more)


def test_user_metadata_over_2_kib_is_refused(s3, bucket):
    fits = {"a": "x" * 1000, "b": "y" * (2048 - 1002)}
    s3.put_object(Bucket=bucket, Key="fits", Body=b"", Metadata=fits)
    assert s3.head_object(Bucket=bucket, Key="fits")["Metadata"] == fits
    with refused(400, "MetadataTooLarge"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"", Metadata=fits | {"c": ""})
    assert not exists(s3, bucket, "k")


CONTENT_HEADERS = {
    "CacheControl": "max-age=60, private",
    "ContentDisposition": 'attachment; filename="a b.txt"',
    "ContentEncoding": "gzip",
    "ContentLanguage": "de-CH",
    "ContentType": "text/html; charset=utf-8",
}


def test_content_headers_come_back(s3, bucket):
    expires = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc)
    s3.put_object(Bucket=bucket, Key="k", Body=b"v", Expires=expires, **CONTENT_HEADERS)
    for answer in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
        assert {name: answer[name] for name in CONTENT_HEADERS} == CONTENT_HEADERS
        assert answer["ExpiresString"] == "Tue, 06 May 2031 07:08:09 GMT"


def test_content_headers_that_were_not_given_are_absent(raw, bucket):
    target = path_of(bucket, "k")
    raw.request("PUT", target, b"v")
    answer = raw.request("GET", target)
    for name in ("cache-control", "content-disposition", "content-encoding", "content-language", "expires"):
        assert name not in answer


RESPONSE_OVERRIDES = {
    "response-content-type": ("content-type", "text/x-other"),
    "response-content-language": ("content-language", "en"),
    "response-expires": ("expires", "Thu, 01 Dec 1994 16:00:00 GMT"),
    "response-cache-control": ("cache-control", "no-store"),
    "response-content-disposition": ("content-disposition", 'inline; filename="x y.txt"'),
    "response-content-encoding": ("content-encoding", "x-thing"),
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_response_parameters_override_headers(s3, raw, bucket, method):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v", **CONTENT_HEADERS)
    for name, (header, value) in RESPONSE_OVERRIDES.items():
        answer = raw.request(method, f"{path_of(bucket, 'k')}?{name}={encode(value)}")
        assert (answer.status, answer[header]) == (200, value), name


def test_response_parameters_work_in_a_presigned_url(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    answer = raw.presigned("GET", path_of(bucket, "k") + "?response-content-type=text%2Fcsv")
    assert (answer.status, answer["content-type"]) == (200, "text/csv")


def test_an_anonymous_request_may_not_override_headers(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    answer = raw.send("GET", path_of(bucket, "k") + "?response-content-type=text%2Fcsv", {})
    assert answer.status in (400, 403) and "text/csv" not in answer["content-type"]


@pytest.mark.parametrize("storage_class", ["STANDARD", "STANDARD_IA", "REDUCED_REDUNDANCY"])
def test_the_storage_class_is_echoed(s3, bucket, storage_class):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v", StorageClass=storage_class)
    # S3 leaves the header out for STANDARD.
    assert s3.head_object(Bucket=bucket, Key="k").get("StorageClass", "STANDARD") == storage_class
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"] == storage_class


def test_a_storage_class_that_s3_does_not_have_is_refused(raw, s3, bucket):
    answer = raw.request("PUT", path_of(bucket, "k"), b"v", {"x-amz-storage-class": "CARDBOARD"})
    assert answer.refusal == (400, "InvalidStorageClass")
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_an_odd_key_is_stored_listed_and_deleted_as_it_is(raw, bucket, key):
    """Each through a raw request, so that no client library tidies the path."""
    target, body = path_of(bucket, key), key.encode()
    assert raw.request("PUT", target, body)["etag"] == etag(body)
    got = raw.request("GET", target)
    assert (got.status, got.body) == (200, body)
    assert raw.request("HEAD", target)["etag"] == etag(body)
    listed = xml_text(raw.request("GET", f"/{bucket}?list-type=2&encoding-type=url").body, "Contents/Key")
    assert unquote_to_bytes(listed) == key.encode()
    assert listed.isascii() and not set(listed) & set("+ <>&%\n") - {"%"}
    assert raw.request("DELETE", target).status == 204
    assert raw.request("GET", target).refusal == (404, "NoSuchKey")


def test_all_odd_keys_live_side_by_side(s3, raw, bucket):
    for key in ODD_KEYS:
        assert raw.request("PUT", path_of(bucket, key), key.encode()).status == 200
    assert keys_of(s3, bucket) == sorted(ODD_KEYS, key=str.encode)
    for key in ODD_KEYS:
        assert raw.request("GET", path_of(bucket, key)).body == key.encode()


def test_a_key_may_be_escaped_more_or_less_than_needed(raw, bucket):
    raw.request("PUT", f"/{bucket}/%61%2F%62", b"v")
    assert raw.request("GET", f"/{bucket}/a/b").body == b"v"
    raw.request("PUT", f"/{bucket}/p+l@u:s", b"w")
    assert raw.request("GET", f"/{bucket}/p%2Bl%40u%3As").body == b"w"


@pytest.mark.parametrize(
    "key", ["k" * 1024, "é" * 512, "a/" * 512, "😀" * 256], ids=["ascii", "2-byte", "slashes", "4-byte"]
)
def test_a_key_of_1024_bytes_is_stored(s3, bucket, key):
    assert len(key.encode()) == 1024
    s3.put_object(Bucket=bucket, Key=key, Body=b"v")
    assert body_of(s3, bucket, key) == b"v"
    assert keys_of(s3, bucket) == [key]


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize("key", ["k" * 1025, "é" * 512 + "x"], ids=["ascii", "2-byte"])
def test_a_key_of_1025_bytes_is_too_long(raw, bucket, method, key):
    assert raw.request(method, path_of(bucket, key)).refusal == (400, "KeyTooLongError")


def test_a_key_that_is_not_utf8_is_refused(raw, s3, bucket):
    answer = raw.request("PUT", f"/{bucket}/%ff%fe", b"v")
    assert answer.status == 400
    assert keys_of(s3, bucket) == []


def test_content_md5_that_matches_is_accepted(raw, bucket):
    digest = b64encode(hashlib.md5(b"body").digest()).decode()
    assert raw.request("PUT", path_of(bucket, "k"), b"body", {"content-md5": digest})["etag"] == etag(b"body")


@pytest.mark.parametrize("size", [4, 100_000])
def test_content_md5_of_another_body_is_a_bad_digest_and_stores_nothing(raw, s3, bucket, size):
    digest = "1B2M2Y8AsgTpgAmY7PhCfg=="  # of no bytes
    answer = raw.request("PUT", path_of(bucket, "k"), pattern(size), {"content-md5": digest})
    assert answer.refusal == (400, "BadDigest")
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("digest", ["nonsense", "YWJj", "!!!!", ""])
def test_content_md5_that_is_no_digest_is_invalid(raw, s3, bucket, digest):
    answer = raw.request("PUT", path_of(bucket, "k"), b"body", {"content-md5": digest})
    assert answer.refusal == (400, "InvalidDigest")
    assert not exists(s3, bucket, "k")


def test_a_failed_overwrite_leaves_the_old_object(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    answer = raw.request("PUT", path_of(bucket, "k"), pattern(200_000), {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="})
    assert answer.refusal == (400, "BadDigest")
    assert body_of(s3, bucket, "k") == b"old"


def test_a_get_that_has_begun_keeps_its_version_through_an_overwrite(raw, s3, bucket):
    old = pattern(8 * MIB, 1)
    s3.put_object(Bucket=bucket, Key="k", Body=old)
    reading = s3.get_object(Bucket=bucket, Key="k")["Body"]
    first = reading.read(1000)
    for round in range(3):
        s3.put_object(Bucket=bucket, Key="k", Body=pattern(8 * MIB, 2 + round))
    s3.delete_object(Bucket=bucket, Key="k")
    for round in range(3):
        s3.put_object(Bucket=bucket, Key=f"other{round}", Body=pattern(8 * MIB, 9))
    assert md5(first + reading.read()) == md5(old)


def test_readers_of_a_key_being_overwritten_see_whole_versions(s3, bucket):
    sizes = [100, 70_000, 300_000]
    versions = {etag(pattern(size, size)): pattern(size, size) for size in sizes}
    s3.put_object(Bucket=bucket, Key="k", Body=pattern(100, 100))

    def work(index: int):
        for round in range(12):
            if index < 3:
                size = sizes[(index + round) % 3]
                s3.put_object(Bucket=bucket, Key="k", Body=pattern(size, size))
            else:
                got = s3.get_object(Bucket=bucket, Key="k")
                assert got["Body"].read() == versions[got["ETag"]]
        return True

    assert together(8, work) == [True] * 8


def test_a_write_is_seen_by_the_next_read_and_list_of_another_connection(s3, raw, bucket):
    for index in range(40):
        key = f"{uuid.uuid4()}"
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        assert raw.request("GET", path_of(bucket, key)).body == key.encode()
        assert key in raw.request("GET", f"/{bucket}?list-type=2&prefix={key}").body.decode()
