"""CopyObject: bytes, metadata, conditions, how the source is written."""

import pytest
from boto3.s3.transfer import TransferConfig
from check import MIB, ODD_KEYS, body_of, etag, exists, multipart_etag, pattern, refused, upload_parts
from sigv4 import encode
from wire import path_of, xml_text


@pytest.mark.parametrize("size", [0, 10, 65_537, 3 * MIB])
def test_a_copy_has_the_bytes_and_the_etag(s3, bucket, second_bucket, size):
    s3.put_object(Bucket=bucket, Key="from", Body=pattern(size))
    answer = s3.copy_object(Bucket=second_bucket, Key="to", CopySource={"Bucket": bucket, "Key": "from"})
    assert answer["CopyObjectResult"]["ETag"] == etag(pattern(size))
    assert body_of(s3, second_bucket, "to") == pattern(size)
    modified = s3.head_object(Bucket=second_bucket, Key="to")["LastModified"]
    assert answer["CopyObjectResult"]["LastModified"].replace(microsecond=0) == modified


def test_a_copy_outlives_its_source(s3, bucket):
    for size in (100, 200_000):
        s3.put_object(Bucket=bucket, Key="from", Body=pattern(size))
        s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/from")
        s3.delete_object(Bucket=bucket, Key="from")
        s3.put_object(Bucket=bucket, Key="from", Body=b"something else")
        assert body_of(s3, bucket, "to") == pattern(size)


def test_a_copy_takes_the_metadata_along(s3, bucket):
    given = {"Metadata": {"a": "1"}, "ContentType": "text/x", "CacheControl": "no-store", "ContentLanguage": "de"}
    s3.put_object(Bucket=bucket, Key="from", Body=b"v", **given)
    # Without REPLACE, what the request says about metadata counts for nothing.
    s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/from", Metadata={"b": "2"}, ContentType="text/y")
    head = s3.head_object(Bucket=bucket, Key="to")
    assert {name: head[name] for name in given} == given


def test_a_copy_with_replace_has_only_the_new_metadata(s3, bucket):
    s3.put_object(Bucket=bucket, Key="from", Body=b"v", Metadata={"a": "1"}, ContentType="text/x", CacheControl="x")
    s3.copy_object(
        Bucket=bucket, Key="to", CopySource=f"{bucket}/from", MetadataDirective="REPLACE", Metadata={"b": "2"}
    )
    head = s3.head_object(Bucket=bucket, Key="to")
    assert (head["Metadata"], head["ContentType"]) == ({"b": "2"}, "binary/octet-stream")
    assert "CacheControl" not in head
    assert body_of(s3, bucket, "to") == b"v"


def test_a_copy_onto_itself_must_change_something(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=pattern(100_000), Metadata={"a": "1"})
    with refused(400, "InvalidRequest"):
        s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k")
    s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k", MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"b": "2"}
    assert body_of(s3, bucket, "k") == pattern(100_000)


@pytest.mark.parametrize("change", [{"StorageClass": "STANDARD"}, {"WebsiteRedirectLocation": "/there"}])
def test_a_copy_onto_itself_may_name_what_is_there(s3, bucket, change):
    """Clients renew an object's date so."""
    s3.put_object(Bucket=bucket, Key="k", Body=pattern(100_000), Metadata={"a": "1"}, **change)
    s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k", **change)
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"a": "1"}
    assert body_of(s3, bucket, "k") == pattern(100_000)
    with refused(412, "PreconditionFailed"):
        s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k", IfNoneMatch="*", **change)


def test_a_copy_replaces_what_was_there(s3, bucket):
    s3.put_object(Bucket=bucket, Key="from", Body=pattern(80_000))
    s3.put_object(Bucket=bucket, Key="to", Body=pattern(90_000), Metadata={"old": "1"})
    s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/from")
    assert body_of(s3, bucket, "to") == pattern(80_000)
    assert s3.head_object(Bucket=bucket, Key="to")["Metadata"] == {}


def test_a_directive_that_s3_does_not_have_is_refused(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="from", Body=b"v")
    headers = {"x-amz-copy-source": f"/{bucket}/from", "x-amz-metadata-directive": "MERGE"}
    assert raw.request("PUT", path_of(bucket, "to"), headers=headers).refusal == (400, "InvalidArgument")
    assert not exists(s3, bucket, "to")


TAG = etag(b"v")
OTHER = '"00000000000000000000000000000000"'
OLD, FUTURE = "Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
CONDITIONS = [
    ({"if-match": TAG}, 200),
    ({"if-match": OTHER}, 412),
    ({"if-none-match": OTHER}, 200),
    ({"if-none-match": TAG}, 412),
    ({"if-modified-since": OLD}, 200),
    ({"if-modified-since": "{modified}"}, 412),
    ({"if-modified-since": FUTURE}, 200),
    ({"if-unmodified-since": "{modified}"}, 200),
    ({"if-unmodified-since": OLD}, 412),
    # CopyObject, "x-amz-copy-source-if-…": these two pairs are the documented exceptions.
    ({"if-match": TAG, "if-unmodified-since": OLD}, 200),
    ({"if-none-match": TAG, "if-modified-since": OLD}, 412),
]


@pytest.mark.parametrize(
    "conditions,status", CONDITIONS, ids=[f"{i}-{'+'.join(c[0])}-{c[1]}" for i, c in enumerate(CONDITIONS)]
)
def test_conditions_on_the_source(raw, s3, bucket, conditions, status):
    s3.put_object(Bucket=bucket, Key="from", Body=b"v")
    modified = raw.request("HEAD", path_of(bucket, "from"))["last-modified"]
    headers = {f"x-amz-copy-source-{n}": v.replace("{modified}", modified) for n, v in conditions.items()}
    answer = raw.request("PUT", path_of(bucket, "to"), headers={"x-amz-copy-source": f"{bucket}/from"} | headers)
    assert answer.status == status
    assert exists(s3, bucket, "to") == (status == 200)
    if status == 412:
        assert answer.code == "PreconditionFailed"


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_a_copy_of_an_odd_key(raw, bucket, key):
    raw.request("PUT", path_of(bucket, key), key.encode())
    source = f"/{bucket}/{encode(key, '/')}"
    answer = raw.request("PUT", path_of(bucket, "copy of it"), headers={"x-amz-copy-source": source})
    assert (answer.status, xml_text(answer.body, "ETag")) == (200, etag(key.encode()))
    assert raw.request("GET", path_of(bucket, "copy of it")).body == key.encode()


@pytest.mark.parametrize("form", ["{b}/a%20b/c", "/{b}/a%20b/c", "{b}%2Fa%20b%2Fc", "/{b}/a%20b%2Fc", "{b}/%61 b/c"])
def test_the_source_may_be_escaped_in_several_ways(raw, s3, bucket, form):
    s3.put_object(Bucket=bucket, Key="a b/c", Body=b"v")
    answer = raw.request("PUT", path_of(bucket, "to"), headers={"x-amz-copy-source": form.format(b=bucket)})
    assert answer.status == 200, answer
    assert body_of(s3, bucket, "to") == b"v"


@pytest.mark.parametrize("source,copied", [("a+b", b"space"), ("a%20b", b"space"), ("a%2Bb", b"plus")])
def test_a_plus_in_the_source_is_a_space(raw, s3, bucket, source, copied):
    """S3 decodes it as a form's: SDKs escape the plus of a key for that."""
    s3.put_object(Bucket=bucket, Key="a+b", Body=b"plus")
    s3.put_object(Bucket=bucket, Key="a b", Body=b"space")
    raw.request("PUT", path_of(bucket, "to"), headers={"x-amz-copy-source": f"{bucket}/{source}"})
    assert body_of(s3, bucket, "to") == copied


def test_a_source_that_is_not_there(s3, bucket):
    with refused(404, "NoSuchKey"):
        s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/nothing")
    with refused(404, "NoSuchBucket"):
        s3.copy_object(Bucket=bucket, Key="to", CopySource="t-never-made/k")
    with refused(404, "NoSuchBucket"):
        s3.copy_object(Bucket="t-never-made", Key="to", CopySource=f"{bucket}/nothing")
    assert not exists(s3, bucket, "to")


@pytest.mark.parametrize("source", ["", "/", "{b}", "{b}/", "/{b}/", "%"])
def test_a_source_that_names_no_object_is_refused(raw, s3, bucket, source):
    answer = raw.request("PUT", path_of(bucket, "to"), headers={"x-amz-copy-source": source.format(b=bucket)})
    assert answer.refusal == (400, "InvalidArgument")
    assert not exists(s3, bucket, "to")


def test_a_copy_of_a_multipart_object_is_one_object(s3, bucket):
    bodies = [pattern(5 * MIB, 1), pattern(100, 2)]
    upload_parts(s3, bucket, "from", bodies)
    s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/from")
    assert body_of(s3, bucket, "to") == b"".join(bodies)
    assert s3.head_object(Bucket=bucket, Key="from")["ETag"] == multipart_etag(bodies)
    # The copy is written in one piece, so that its ETag is the MD5 of all of it.
    assert s3.head_object(Bucket=bucket, Key="to")["ETag"] == etag(b"".join(bodies))


def test_the_transfer_manager_copies_in_parts(s3, bucket):
    body = pattern(12 * MIB)
    s3.put_object(Bucket=bucket, Key="from", Body=body)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.copy({"Bucket": bucket, "Key": "from"}, bucket, "to", Config=config)
    assert body_of(s3, bucket, "to") == body
    assert s3.head_object(Bucket=bucket, Key="to")["ETag"].endswith('-3"')


def test_a_copy_only_if_the_target_is_not_there(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="from", Body=b"new")
    s3.put_object(Bucket=bucket, Key="to", Body=b"old")
    headers = {"x-amz-copy-source": f"{bucket}/from", "if-none-match": "*"}
    assert raw.request("PUT", path_of(bucket, "to"), headers=headers).refusal == (412, "PreconditionFailed")
    assert body_of(s3, bucket, "to") == b"old"
    assert raw.request("PUT", path_of(bucket, "fresh"), headers=headers).status == 200


def test_an_empty_version_of_a_source_is_an_invalid_argument(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    source = {"x-amz-copy-source": f"/{bucket}/k?versionId="}
    assert raw.request("PUT", path_of(bucket, "to"), headers=source).refusal == (400, "InvalidArgument")
    assert not exists(s3, bucket, "to")
