#!/usr/bin/env python3
"""A session of minio-py. Endpoint and keys from the environment; prints PASS or FAIL for each step."""

import io
import os
import sys
import tempfile
import time
import traceback
import urllib.request
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from minio import Minio
from minio.commonconfig import REPLACE, ComposeSource, CopySource
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

MIB = 1 << 20
ENDPOINT = urlsplit(os.environ.get("WEFT_ENDPOINT", "http://127.0.0.1:9000"))
BUCKET = f"clients-minio-py-{os.getpid()}-{int(time.time())}"
ODD_KEYS = [
    "a b", "plus+plus", "100%", "ümläut/日本語", "emoji😀", "a=b&c", "semi;colon", "quote's", "#hash", "(x)!~*", "q?x=1",
    "<&>", "back\\slash", "trailing/", "a//b", "@:,$",
]  # fmt: skip


class Session:
    """The steps, in order. Each raises when it fails."""

    def __init__(self, client: Minio, work: Path):
        self.client, self.work = client, work
        self.large = os.urandom(100 * MIB)

    def make_bucket(self):
        self.client.make_bucket(BUCKET)
        assert self.client.bucket_exists(BUCKET) and not self.client.bucket_exists(BUCKET + "x")
        assert BUCKET in [b.name for b in self.client.list_buckets()]

    def make_it_again_is_refused(self):
        expect("BucketAlreadyOwnedByYou", lambda: self.client.make_bucket(BUCKET))

    def put_get_stat(self):
        put = self.client.put_object(BUCKET, "small", io.BytesIO(b"hello"), 5, "text/x", {"a": "1"})
        stat = self.client.stat_object(BUCKET, "small")
        assert (stat.size, stat.etag, stat.content_type) == (5, put.etag, "text/x")
        assert stat.metadata["x-amz-meta-a"] == "1"
        assert self.read("small") == b"hello"
        assert self.read("small", offset=1, length=3) == b"ell"

    def put_empty(self):
        self.client.put_object(BUCKET, "empty", io.BytesIO(), 0)
        assert self.read("empty") == b""

    def list(self):
        for index in range(30):
            self.client.put_object(BUCKET, f"dir/{index:02}", io.BytesIO(b"x"), 1)
        listed = [o.object_name for o in self.client.list_objects(BUCKET, prefix="dir/")]
        assert listed == [f"dir/{index:02}" for index in range(30)]
        assert "dir/" in [o.object_name for o in self.client.list_objects(BUCKET)]
        v1 = [o.object_name for o in self.client.list_objects(BUCKET, recursive=True, use_api_v1=True)]
        assert v1 == [o.object_name for o in self.client.list_objects(BUCKET, recursive=True)]

    def copy(self):
        self.client.copy_object(BUCKET, "copy", CopySource(BUCKET, "small"))
        assert self.read("copy") == b"hello"
        self.client.copy_object(
            BUCKET, "copy", CopySource(BUCKET, "small"), metadata={"b": "2"}, metadata_directive=REPLACE
        )
        assert self.client.stat_object(BUCKET, "copy").metadata["x-amz-meta-b"] == "2"

    def multipart_100_mib(self):
        (self.work / "large").write_bytes(self.large)
        self.client.fput_object(BUCKET, "large", str(self.work / "large"), part_size=10 * MIB)
        assert self.client.stat_object(BUCKET, "large").etag.endswith("-10")
        self.client.fget_object(BUCKET, "large", str(self.work / "back"))
        assert (self.work / "back").read_bytes() == self.large

    def multipart_of_unknown_length(self):
        self.client.put_object(BUCKET, "stream", io.BytesIO(self.large[: 12 * MIB]), -1, part_size=5 * MIB)
        assert self.read("stream") == self.large[: 12 * MIB]

    def compose(self):
        sources = [ComposeSource(BUCKET, "large"), ComposeSource(BUCKET, "small")]
        self.client.compose_object(BUCKET, "composed", sources)
        assert self.read("composed") == self.large + b"hello"

    def presigned(self):
        url = self.client.presigned_put_object(BUCKET, "presigned", timedelta(minutes=1))
        urllib.request.urlopen(urllib.request.Request(url, b"by url", method="PUT")).close()
        url = self.client.presigned_get_object(BUCKET, "presigned", timedelta(minutes=1))
        assert urllib.request.urlopen(url).read() == b"by url"

    def nothing_there_is_no_such_key(self):
        expect("NoSuchKey", lambda: self.client.get_object(BUCKET, "nothing"))

    def odd_keys(self):
        for key in ODD_KEYS:
            self.client.put_object(BUCKET, f"odd/{key}", io.BytesIO(key.encode()), len(key.encode()))
            assert self.read(f"odd/{key}") == key.encode(), key
            self.client.copy_object(BUCKET, "odd copy", CopySource(BUCKET, f"odd/{key}"))
            assert self.read("odd copy") == key.encode(), key
        listed = {o.object_name for o in self.client.list_objects(BUCKET, prefix="odd/", recursive=True)}
        assert listed == {f"odd/{key}" for key in ODD_KEYS}

    def delete(self):
        self.client.remove_object(BUCKET, "small")
        expect("NoSuchKey", lambda: self.client.stat_object(BUCKET, "small"))

    def a_bucket_with_objects_is_not_removed(self):
        expect("BucketNotEmpty", lambda: self.client.remove_bucket(BUCKET))

    def delete_all(self):
        names = [DeleteObject(o.object_name) for o in self.client.list_objects(BUCKET, recursive=True)]
        assert list(self.client.remove_objects(BUCKET, names)) == []
        assert list(self.client.list_objects(BUCKET, recursive=True)) == []

    def remove_bucket(self):
        self.client.remove_bucket(BUCKET)
        assert not self.client.bucket_exists(BUCKET)

    def read(self, key: str, **how) -> bytes:
        answer = self.client.get_object(BUCKET, key, **how)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()


def expect(code: str, call) -> None:
    try:
        call()
    except S3Error as error:
        assert error.code == code, error
    else:
        raise AssertionError(f"expected {code}")


def main() -> int:
    client = Minio(
        ENDPOINT.netloc,
        access_key=os.environ.get("WEFT_ACCESS_KEY", "rustfsadmin"),
        secret_key=os.environ.get("WEFT_SECRET_KEY", "rustfssecret"),
        secure=ENDPOINT.scheme == "https",
        region=os.environ.get("WEFT_REGION"),
    )
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        session = Session(client, Path(work))
        steps = [name for name in vars(Session) if not name.startswith("_") and name != "read"]
        for name in steps:
            try:
                getattr(session, name)()
                print(f"PASS {name.replace('_', ' ')}")
            except Exception:  # noqa: BLE001 - every failure is a step's
                failed += 1
                print(f"FAIL {name.replace('_', ' ')}")
                print("     | " + traceback.format_exc().strip().replace("\n", "\n     | "))
    print("PASS all" if not failed else f"FAIL {failed} steps")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
