"""Small things that most tests say."""

import contextlib
import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError
from wire import Raw, path_of

MIB = 1 << 20
PART = 5 * MIB
# Keys that have broken servers of this kind: to S3 a key is bytes, never a path.
ODD_KEYS = [
    "a", "a/b", ".", "..", "./a", "../a", "a/../b", "a/./b", "a//b", "//", "/", "/lead", "trail/", "a/", "...",
    " ", "a b", " a ", "plus+plus", "100%", "%2F", "%00", "a%20b", "q?x=1&y=2", "#hash", "semi;colon", "a=b", "a&b",
    "back\\slash", "..\\..\\up", "new\nline", "tab\there", "car\rriage", "quote\"s'", "<xml>&amp;", "]]>", "~tilde",
    "*", "|", "^", "`", "{brace}", "[x]", "com:mas,and:colons", "@", "$HOME", "!", "(paren)", "\x01control", "\x7f",
    "ümläut", "日本語/キー", "emoji😀", "e\u0301 combining", "\u202eright-to-left", "\ufeffbom", "nul\\0", "\u0080",
    "-", "--help", "_", "\U0010ffff",
]  # fmt: skip


@contextlib.contextmanager
def refused(status: int, code: str):
    """The boto3 call inside fails with exactly this."""
    with pytest.raises(ClientError) as caught:
        yield caught
    answer = caught.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (status, code), answer


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def etag(data: bytes) -> str:
    """The ETag of an object stored in one PUT, quotes included."""
    return f'"{md5(data)}"'


def multipart_etag(parts: list[bytes]) -> str:
    joined = b"".join(hashlib.md5(part).digest() for part in parts)
    return f'"{md5(joined)}-{len(parts)}"'


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes that differ at every offset in a way that a misplaced block shows."""
    return random.Random(f"{length}/{seed}").randbytes(length)


def keys_of(s3, bucket: str, **options) -> list[str]:
    """Every key of a bucket, through all pages of ListObjectsV2."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **options)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def exists(s3, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404, error.response
        return False
    return True


def body_of(s3, bucket: str, key: str, **options) -> bytes:
    return s3.get_object(Bucket=bucket, Key=key, **options)["Body"].read()


def put_many(raw: Raw, bucket: str, keys: list[str], body: bytes = b"") -> None:
    """Puts `body` under many keys, faster than an SDK would: a few connections kept alive."""

    def put_all(some: list[str]) -> None:
        with raw.connect() as wire:
            for key in some:
                target = path_of(bucket, key)
                answer = wire.request("PUT", target, raw.signed("PUT", target, body), body)
                assert answer.status == 200, answer

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(put_all, [keys[i::4] for i in range(4)]))


def together(count: int, call) -> list:
    """`call(i)` for each i below `count`, all at once; returns results or the exceptions raised."""

    def one(index: int):
        try:
            return call(index)
        except Exception as error:  # noqa: BLE001 - the caller looks at what it was
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


def new_upload(s3, bucket: str, key: str, **options) -> str:
    return s3.create_multipart_upload(Bucket=bucket, Key=key, **options)["UploadId"]


def put_part(s3, bucket: str, key: str, upload: str, number: int, body: bytes, **options) -> dict:
    """Uploads a part, and returns its entry for completion."""
    answer = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **options)
    entry = {"PartNumber": number, "ETag": answer["ETag"]}
    if "ChecksumAlgorithm" in options:
        entry |= {name: value for name, value in answer.items() if name.startswith("Checksum")}
    return entry


def complete(s3, bucket: str, key: str, upload: str, parts: list[dict], **options) -> dict:
    return s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **options
    )


def upload_parts(s3, bucket: str, key: str, bodies: list[bytes], **options) -> dict:
    """A whole multipart upload."""
    upload = new_upload(s3, bucket, key, **options)
    parts = [put_part(s3, bucket, key, upload, n, body) for n, body in enumerate(bodies, 1)]
    return complete(s3, bucket, key, upload, parts)
