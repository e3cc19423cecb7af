"""The session that a boto3 tutorial for such a server walks through, start to end."""

import asyncio
import subprocess
import time

import aioboto3
import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from check import (
    MIB,
    PART,
    body_of,
    complete,
    etag,
    keys_of,
    multipart_etag,
    new_upload,
    pattern,
    put_part,
    refused,
    together,
)
from conftest import client_for, new_bucket_name
from daemon import ACCESS_KEY, SECRET_KEY


@pytest.fixture(scope="module")
def tutorial(endpoint):
    """The client as tutorials make it: no addressing style, default retries."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(signature_version="s3v4"),
        region_name="us-east-1",
    )


def curl(*arguments: str) -> tuple[int, bytes]:
    """Status and body of what the curl program got."""
    command = ["curl", "--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}", *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


def test_the_whole_tutorial_session(tutorial, tmp_path):
    bucket, key = new_bucket_name(), "report.txt"
    tutorial.create_bucket(Bucket=bucket)
    assert bucket in [b["Name"] for b in tutorial.list_buckets()["Buckets"]]

    source, target = tmp_path / "report.txt", tmp_path / "back.txt"
    source.write_bytes(b"hello from the tutorial\n")
    tutorial.upload_file(str(source), bucket, key)
    tutorial.download_file(bucket, key, str(target))
    assert target.read_bytes() == source.read_bytes()

    (entry,) = tutorial.list_objects_v2(Bucket=bucket)["Contents"]
    assert (entry["Key"], entry["Size"], entry["ETag"]) == (key, 24, etag(source.read_bytes()))

    url = tutorial.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=60)
    assert curl(url) == (200, source.read_bytes())

    tutorial.delete_object(Bucket=bucket, Key=key)
    tutorial.delete_bucket(Bucket=bucket)
    assert bucket not in [b["Name"] for b in tutorial.list_buckets()["Buckets"]]


def test_creating_a_bucket_twice_says_that_it_is_owned_by_you(tutorial):
    bucket = new_bucket_name()
    tutorial.create_bucket(Bucket=bucket)
    with refused(409, "BucketAlreadyOwnedByYou"):
        tutorial.create_bucket(Bucket=bucket)
    with pytest.raises(tutorial.exceptions.BucketAlreadyOwnedByYou):
        tutorial.create_bucket(Bucket=bucket)
    tutorial.delete_bucket(Bucket=bucket)


def test_40_mib_through_the_transfer_manager_come_back_whole(tutorial, bucket, tmp_path):
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB, max_concurrency=10)
    source, target = tmp_path / "large", tmp_path / "back"
    source.write_bytes(pattern(40 * MIB))
    tutorial.upload_file(str(source), bucket, "large.bin", Config=config)
    tutorial.download_file(bucket, "large.bin", str(target), Config=config)
    assert target.read_bytes() == source.read_bytes()
    head = tutorial.head_object(Bucket=bucket, Key="large.bin")
    assert head["ContentLength"] == 40 * MIB
    parts = [source.read_bytes()[i : i + 8 * MIB] for i in range(0, 40 * MIB, 8 * MIB)]
    assert head["ETag"] == multipart_etag(parts)


def test_presigned_put_with_curl_stores_the_object(tutorial, bucket, tmp_path):
    body = pattern(300_000)
    (tmp_path / "upload").write_bytes(body)
    url = tutorial.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "by curl"}, ExpiresIn=60)
    status, answer = curl("--upload-file", str(tmp_path / "upload"), url)
    assert (status, answer) == (200, b"")
    assert body_of(tutorial, bucket, "by curl") == body


def test_presigned_put_with_a_content_type_wants_that_content_type(tutorial, bucket, tmp_path):
    (tmp_path / "page").write_bytes(b"<p>")
    params = {"Bucket": bucket, "Key": "page", "ContentType": "text/html"}
    url = tutorial.generate_presigned_url("put_object", Params=params, ExpiresIn=60)
    status, answer = curl("-T", str(tmp_path / "page"), "-H", "Content-Type: text/plain", url)
    assert status == 403 and b"SignatureDoesNotMatch" in answer
    status, _ = curl("-T", str(tmp_path / "page"), "-H", "Content-Type: text/html", url)
    assert status == 200
    assert tutorial.head_object(Bucket=bucket, Key="page")["ContentType"] == "text/html"


def test_a_tampered_presigned_url_is_refused(tutorial, bucket):
    tutorial.put_object(Bucket=bucket, Key="mine", Body=b"mine")
    tutorial.put_object(Bucket=bucket, Key="other", Body=b"secret")
    url = tutorial.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "mine"}, ExpiresIn=60)
    for wrong in (url.replace("/mine?", "/other?"), url.replace("Expires=60", "Expires=600"), url + "&versionId=null"):
        assert wrong != url
        status, answer = curl(wrong)
        assert status == 403 and b"<Code>SignatureDoesNotMatch</Code>" in answer
    assert curl(url) == (200, b"mine")


def test_an_expired_presigned_url_is_refused(tutorial, bucket):
    tutorial.put_object(Bucket=bucket, Key="k", Body=b"v")
    url = tutorial.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=1)
    deadline = time.monotonic() + 10
    while (answer := curl(url))[0] == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answer[0] == 403
    assert b"<Code>AccessDenied</Code>" in answer[1] and b"Request has expired" in answer[1]


def test_multipart_by_hand_in_5_mib_parts(tutorial, bucket):
    bodies = [pattern(PART, 1), pattern(PART, 2), pattern(1234, 3)]
    upload = new_upload(tutorial, bucket, "by-hand")
    parts = [put_part(tutorial, bucket, "by-hand", upload, n, body) for n, body in enumerate(bodies, 1)]
    answer = complete(tutorial, bucket, "by-hand", upload, parts)
    assert answer["ETag"] == multipart_etag(bodies)
    assert body_of(tutorial, bucket, "by-hand") == b"".join(bodies)


def test_multipart_is_aborted_on_error_and_leaves_nothing(tutorial, bucket):
    upload = new_upload(tutorial, bucket, "failed")
    try:
        put_part(tutorial, bucket, "failed", upload, 1, pattern(PART))
        raise RuntimeError("the disk of the client broke")
    except RuntimeError:
        tutorial.abort_multipart_upload(Bucket=bucket, Key="failed", UploadId=upload)
    assert "Uploads" not in tutorial.list_multipart_uploads(Bucket=bucket)
    assert keys_of(tutorial, bucket) == []
    with refused(404, "NoSuchUpload"):
        put_part(tutorial, bucket, "failed", upload, 2, b"late")


def test_head_of_nothing_is_404(tutorial, bucket):
    with pytest.raises(ClientError) as caught:
        tutorial.head_object(Bucket=bucket, Key="nothing")
    assert caught.value.response["Error"]["Code"] == "404"


def test_a_bucket_that_is_not_there_is_no_such_bucket(tutorial):
    with pytest.raises(tutorial.exceptions.NoSuchBucket):
        tutorial.list_objects_v2(Bucket="t-never-made")
    with refused(404, "NoSuchBucket"):
        tutorial.put_object(Bucket="t-never-made", Key="k", Body=b"")
    with refused(404, "404"):
        tutorial.head_bucket(Bucket="t-never-made")


def test_a_key_that_is_not_there_is_no_such_key(tutorial, bucket):
    with pytest.raises(tutorial.exceptions.NoSuchKey):
        tutorial.get_object(Bucket=bucket, Key="nothing")


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "cn-north-1", "on-premises"])
def test_any_region_is_accepted(endpoint, bucket, region):
    client = client_for(endpoint, region=region)
    client.put_object(Bucket=bucket, Key=region, Body=b"here")
    assert body_of(client, bucket, region) == b"here"


def test_50_threads_share_a_pool_of_50_with_adaptive_retries(endpoint, bucket):
    client = client_for(endpoint, max_pool_connections=50, retries={"max_attempts": 5, "mode": "adaptive"})

    def work(index: int) -> bool:
        key, body = f"thread/{index:02}", pattern(20_000, index)
        client.put_object(Bucket=bucket, Key=key, Body=body)
        return body_of(client, bucket, key) == body

    assert together(50, work) == [True] * 50
    assert keys_of(client, bucket) == [f"thread/{index:02}" for index in range(50)]


def test_aioboto3_uploads_100_objects_at_once(endpoint, bucket):
    async def session() -> list[bytes]:
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
        config = Config(max_pool_connections=100, retries={"total_max_attempts": 1})
        async with aioboto3.Session().client("s3", endpoint_url=endpoint, config=config, **keys) as client:
            puts = [client.put_object(Bucket=bucket, Key=f"{i:03}", Body=pattern(9000, i)) for i in range(100)]
            await asyncio.gather(*puts)

            async def get(index: int) -> bytes:
                answer = await client.get_object(Bucket=bucket, Key=f"{index:03}")
                return await answer["Body"].read()

            return await asyncio.gather(*[get(i) for i in range(100)])

    assert asyncio.run(session()) == [pattern(9000, i) for i in range(100)]
