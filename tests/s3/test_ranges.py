"""GET and HEAD with Range (RFC 9110, section 14)."""

import pytest
from check import MIB, body_of, pattern, refused, upload_parts
from wire import path_of

# Crosses blocks of the extent (65520 bytes of payload each), and lies inline.
SIZES = [1000, 65_520 * 3 + 7, 3 * MIB]


def spans(size: int) -> dict[str, tuple[int, int]]:
    """Range header -> first and last byte that it selects."""
    return {
        "bytes=0-0": (0, 0),
        "bytes=0-": (0, size - 1),
        f"bytes=0-{size - 1}": (0, size - 1),
        f"bytes=0-{size + 100}": (0, size - 1),
        "bytes=1-2": (1, 2),
        "bytes=500-": (500, size - 1),
        f"bytes={size - 1}-": (size - 1, size - 1),
        f"bytes={size // 2}-{size // 2 + 300}": (size // 2, size // 2 + 300),
        f"bytes={size // 3}-{2 * size // 3}": (size // 3, 2 * size // 3),
        "bytes=-1": (size - 1, size - 1),
        "bytes=-300": (size - 300, size - 1),
        f"bytes=-{size}": (0, size - 1),
        f"bytes=-{size + 5}": (0, size - 1),
    }


@pytest.mark.parametrize("size", SIZES)
def test_a_range_gives_its_bytes_and_says_which(s3, bucket, size):
    body = pattern(size)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    for header, (first, last) in spans(size).items():
        got = s3.get_object(Bucket=bucket, Key="k", Range=header)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206, header
        assert got["ContentRange"] == f"bytes {first}-{last}/{size}", header
        assert got["ContentLength"] == last - first + 1, header
        assert got["Body"].read() == body[first : last + 1], header


def test_ranges_around_each_block_boundary(s3, bucket):
    size = 65_520 * 4 + 100
    body = pattern(size)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    for block in (65_520, 65_536):
        for at in range(block, size, block):
            for first, last in ((at - 1, at - 1), (at, at), (at - 1, at), (at - 1, min(at + block, size - 1))):
                assert body_of(s3, bucket, "k", Range=f"bytes={first}-{last}") == body[first : last + 1], (first, last)


@pytest.mark.parametrize("size", [0, 1, 1000, 200_000])
def test_a_range_past_the_end_cannot_be_satisfied(raw, s3, bucket, size):
    s3.put_object(Bucket=bucket, Key="k", Body=pattern(size))
    for header in (f"bytes={size}-", f"bytes={size + 10}-{size + 20}", "bytes=-0"):
        answer = raw.request("GET", path_of(bucket, "k"), headers={"range": header})
        assert answer.refusal == (416, "InvalidRange"), header
        assert answer["content-range"] == f"bytes */{size}", header


def test_a_suffix_of_an_empty_object_cannot_be_satisfied(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    with refused(416, "InvalidRange"):
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=-5")


@pytest.mark.parametrize(
    "header", ["bytes=5-2", "bytes=a-b", "bytes=", "bytes", "items=0-1", "bytes=--1", "bytes=1", "0-5"]
)
def test_a_range_that_is_malformed_is_ignored(raw, s3, bucket, header):
    """RFC 9110, section 14.2: an invalid ranges-specifier or unknown unit is ignored, the whole object is the answer."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    answer = raw.request("GET", path_of(bucket, "k"), headers={"range": header})
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_several_ranges_get_the_whole_object(raw, s3, bucket):
    """S3 does not support more than one range a request; it answers with all of it."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    answer = raw.request("GET", path_of(bucket, "k"), headers={"range": "bytes=0-1,4-5"})
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_head_with_a_range_answers_as_get_would(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=pattern(5000))
    head = s3.head_object(Bucket=bucket, Key="k", Range="bytes=100-199")
    assert head["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert (head["ContentLength"], head["ContentRange"]) == (100, "bytes 100-199/5000")
    with refused(416, "416"):
        s3.head_object(Bucket=bucket, Key="k", Range="bytes=5000-")


def test_a_range_of_a_multipart_object_crosses_its_parts(s3, bucket):
    bodies = [pattern(5 * MIB, 1), pattern(5 * MIB + 3, 2), pattern(77, 3)]
    upload_parts(s3, bucket, "k", bodies)
    whole = b"".join(bodies)
    for first, last in (
        (5 * MIB - 1, 5 * MIB),
        (5 * MIB - 70_000, 5 * MIB + 70_000),
        (10 * MIB + 2, 10 * MIB + 3),
        (4 * MIB, len(whole) - 1),
        (len(whole) - 78, len(whole) - 1),
    ):
        assert body_of(s3, bucket, "k", Range=f"bytes={first}-{last}") == whole[first : last + 1]


def test_a_very_large_number_in_a_range_is_not_an_error(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    answer = raw.request("GET", path_of(bucket, "k"), headers={"range": f"bytes=5-{2**64 - 1}"})
    assert (answer.status, answer.body) == (206, b"56789")
    answer = raw.request("GET", path_of(bucket, "k"), headers={"range": f"bytes=-{2**64 - 1}"})
    assert (answer.status, answer.body) == (206, b"0123456789")


def test_a_range_carries_the_objects_etag_and_metadata(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=pattern(5000), Metadata={"a": "b"}, ContentType="text/plain")
    got = s3.get_object(Bucket=bucket, Key="k", Range="bytes=1-2")
    assert (got["ETag"], got["Metadata"], got["ContentType"]) == (put["ETag"], {"a": "b"}, "text/plain")


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_download_goes_on_only_in_the_version_that_it_began(raw, s3, bucket, size):
    """RFC 9110, section 13.1.5: else a client would join bytes of two versions."""
    old = s3.put_object(Bucket=bucket, Key="k", Body=pattern(size, 1))["ETag"]
    body = pattern(size, 2)
    new = s3.put_object(Bucket=bucket, Key="k", Body=body)["ETag"]
    date = raw.request("HEAD", path_of(bucket, "k"))["last-modified"]
    for if_range, status in (
        (new, 206), (date, 206), (old, 200), ("W/" + new, 200), ("Mon, 12 Oct 2009 17:50:29 GMT", 200),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 200), ("garbage", 200), ("*", 200), (f"{new}, {old}", 200),
    ):  # fmt: skip
        headers = {"range": "bytes=5-", "if-range": if_range}
        got = raw.request("GET", path_of(bucket, "k"), headers=headers)
        assert got.status == status, if_range
        assert got.body == (body if status == 200 else body[5:])
        assert ("content-range" in got) == (status == 206) and got["etag"] == new
        headed = raw.request("HEAD", path_of(bucket, "k"), headers=headers)
        assert (headed.status, headed["content-length"]) == (status, str(len(got.body)))


def test_a_range_of_another_version_that_would_lie_behind_the_end_is_no_error(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"short")
    headers = {"range": "bytes=100-", "if-range": '"0123456789abcdef0123456789abcdef"'}
    answer = raw.request("GET", path_of(bucket, "k"), headers=headers)
    assert (answer.status, answer.body) == (200, b"short")
