"""DeleteObjects: many keys in one request."""

import hashlib
import zlib
from base64 import b64encode
from xml.sax.saxutils import escape

import pytest
from check import ODD_KEYS, exists, keys_of, put_many, refused, together
from wire import path_of, xml


def document(keys: list[str], quiet: str = "") -> bytes:
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f"<Delete>{quiet}{objects}</Delete>".encode()


def content_md5(body: bytes) -> dict[str, str]:
    return {"content-md5": b64encode(hashlib.md5(body).digest()).decode()}


def test_keys_are_deleted_and_named(s3, raw, bucket):
    put_many(raw, bucket, ["a", "b", "c"])
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "c"}]})
    assert [entry["Key"] for entry in answer["Deleted"]] == ["a", "c"] and "Errors" not in answer
    assert keys_of(s3, bucket) == ["b"]


def test_a_key_that_is_not_there_counts_as_deleted(s3, bucket):
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "never"}]})
    assert [entry["Key"] for entry in answer["Deleted"]] == ["never"]


def test_quiet_names_only_errors(s3, raw, bucket):
    put_many(raw, bucket, ["a", "b"])
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "b"}], "Quiet": True})
    assert "Deleted" not in answer and "Errors" not in answer
    assert keys_of(s3, bucket) == []


def test_a_key_named_twice_is_deleted_once(s3, raw, bucket):
    put_many(raw, bucket, ["a", "b"])
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "a"}]})
    assert {entry["Key"] for entry in answer["Deleted"]} == {"a"} and "Errors" not in answer
    assert keys_of(s3, bucket) == ["b"]


def test_1000_keys_in_one_request(s3, raw, bucket):
    keys = [f"{i:04}" for i in range(1000)]
    put_many(raw, bucket, [*keys, "stays"])
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    assert sorted(entry["Key"] for entry in answer["Deleted"]) == keys
    assert keys_of(s3, bucket) == ["stays"]


def test_1001_keys_are_malformed_and_nothing_is_deleted(s3, raw, bucket):
    put_many(raw, bucket, ["0000"])
    with refused(400, "MalformedXML"):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"{i:04}"} for i in range(1001)]})
    assert exists(s3, bucket, "0000")


def test_odd_keys_are_deleted_as_they_are(s3, raw, bucket):
    # XML 1.0 cannot carry these characters, however they are written.
    keys = [key for key in ODD_KEYS if "\x01" not in key and "\r" not in key]
    put_many(raw, bucket, keys)
    body = document(keys)
    answer = raw.request("POST", f"/{bucket}?delete", body, content_md5(body))
    assert answer.status == 200
    assert {e.text for e in xml(answer.body).iterfind("Deleted/Key")} == set(keys)
    assert keys_of(s3, bucket) == []


def test_one_of_md5_and_checksum_is_required(s3, raw, bucket):
    put_many(raw, bucket, ["a"])
    answer = raw.request("POST", f"/{bucket}?delete", document(["a"]))
    assert answer.refusal == (400, "InvalidRequest")
    assert exists(s3, bucket, "a")


@pytest.mark.parametrize("how", ["content-md5", "x-amz-checksum-crc32", "x-amz-checksum-sha256", "x-amz-checksum-sha1"])
def test_md5_or_any_checksum_will_do_and_must_match(s3, raw, bucket, how):
    digests = {
        "content-md5": lambda body: hashlib.md5(body).digest(),
        "x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
        "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
        "x-amz-checksum-sha1": lambda body: hashlib.sha1(body).digest(),
    }
    put_many(raw, bucket, ["a"])
    body = document(["a"])
    wrong = {how: b64encode(digests[how](b"another document")).decode()}
    assert raw.request("POST", f"/{bucket}?delete", body, wrong).refusal == (400, "BadDigest")
    assert exists(s3, bucket, "a")
    right = {how: b64encode(digests[how](body)).decode()}
    assert raw.request("POST", f"/{bucket}?delete", body, right).status == 200
    assert not exists(s3, bucket, "a")


@pytest.mark.parametrize(
    "body",
    [b"", b"<Delete/>", b"<Delete><Object/></Delete>", b"<Delete><Object><Key></Key></Object></Delete>",
     b"<Delete><Object><Key>a</Key></Object>", b"<Other><Object><Key>a</Key></Object></Other>", b"a", b"\xff\xfe"],
)  # fmt: skip
def test_a_document_that_is_malformed_deletes_nothing(s3, raw, bucket, body):
    put_many(raw, bucket, ["a"])
    answer = raw.request("POST", f"/{bucket}?delete", body, content_md5(body))
    assert answer.status == 400 and answer.code in ("MalformedXML", "UserKeyMustBeSpecified")
    assert exists(s3, bucket, "a")


def test_from_a_missing_bucket(s3):
    with refused(404, "NoSuchBucket"):
        s3.delete_objects(Bucket="t-never-made", Delete={"Objects": [{"Key": "a"}]})


def test_the_namespace_and_a_declaration_are_accepted(s3, raw, bucket):
    put_many(raw, bucket, ["a"])
    inner = '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>false</Quiet><Object><Key>a</Key></Object></Delete>'
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{inner}\n'.encode()
    assert raw.request("POST", f"/{bucket}?delete", body, content_md5(body)).status == 200
    assert not exists(s3, bucket, "a")


def test_keys_may_be_written_with_character_references(s3, raw, bucket):
    put_many(raw, bucket, ["a\nb", "é", "<"])
    body = b"<Delete><Object><Key>a&#10;b</Key></Object><Object><Key>&#xE9;</Key></Object><Object><Key>&lt;</Key></Object></Delete>"
    assert raw.request("POST", f"/{bucket}?delete", body, content_md5(body)).status == 200
    assert keys_of(s3, bucket) == []


def test_deleting_a_key_while_it_is_being_written(s3, raw, bucket):
    """Each request is whole: afterwards the key is as one of the orders would have left it."""

    def work(index: int):
        if index % 2:
            s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})
        else:
            raw.request("PUT", path_of(bucket, "k"), b"v")
        return True

    assert together(12, work) == [True] * 12
    assert exists(s3, bucket, "k") == (keys_of(s3, bucket) == ["k"])
