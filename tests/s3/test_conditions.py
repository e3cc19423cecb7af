"""Conditional requests: RFC 9110 section 13, and S3's conditional writes."""

import pytest
from check import body_of, complete, etag, exists, new_upload, pattern, put_part, refused, together
from wire import path_of

OLD = "Mon, 01 Jan 2001 00:00:00 GMT"
FUTURE = "Fri, 01 Jan 2100 00:00:00 GMT"
BODY = b"the body"
TAG = etag(BODY)
OTHER = '"00000000000000000000000000000000"'

# Request headers -> status. `{modified}` is the object's own Last-Modified.
CASES = [
    ({"if-match": TAG}, 200),
    ({"if-match": TAG.strip('"')}, 200),
    ({"if-match": "*"}, 200),
    ({"if-match": OTHER}, 412),
    ({"if-match": f"{OTHER}, {TAG}"}, 200),
    ({"if-none-match": TAG}, 304),
    ({"if-none-match": "*"}, 304),
    ({"if-none-match": OTHER}, 200),
    ({"if-none-match": f"{OTHER}, {TAG}"}, 304),
    ({"if-none-match": f"W/{TAG}"}, 304),
    ({"if-modified-since": OLD}, 200),
    ({"if-modified-since": "{modified}"}, 304),
    # S3 ignores a date to come.
    ({"if-modified-since": FUTURE}, 200),
    ({"if-unmodified-since": OLD}, 412),
    ({"if-unmodified-since": "{modified}"}, 200),
    ({"if-unmodified-since": FUTURE}, 200),
    # RFC 9110, 13.2.2: If-Match makes If-Unmodified-Since count for nothing, ...
    ({"if-match": TAG, "if-unmodified-since": OLD}, 200),
    ({"if-match": OTHER, "if-unmodified-since": FUTURE}, 412),
    # ... If-None-Match does so with If-Modified-Since, ...
    ({"if-none-match": OTHER, "if-modified-since": FUTURE}, 200),
    ({"if-none-match": TAG, "if-modified-since": OLD}, 304),
    # ... and what makes it 412 is asked before what makes it 304.
    ({"if-match": OTHER, "if-none-match": TAG}, 412),
    ({"if-match": TAG, "if-none-match": TAG}, 304),
    ({"if-match": TAG, "if-modified-since": "{modified}"}, 304),
    ({"if-unmodified-since": OLD, "if-none-match": TAG}, 412),
    ({"if-unmodified-since": OLD, "if-modified-since": FUTURE}, 412),
    # A date that is none is ignored (13.1.3, 13.1.4).
    ({"if-modified-since": "yesterday"}, 200),
    ({"if-unmodified-since": "yesterday"}, 200),
    # The obsolete date formats of 5.6.7 are dates.
    ({"if-modified-since": "Friday, 01-Jan-99 00:00:00 GMT"}, 200),
    ({"if-unmodified-since": "Mon Jan  1 00:00:00 2001"}, 412),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers,status", CASES, ids=[f"{i}-{'+'.join(c[0])}-{c[1]}" for i, c in enumerate(CASES)])
def test_precedence_of_conditions(raw, s3, bucket, method, headers, status):
    s3.put_object(Bucket=bucket, Key="k", Body=BODY)
    modified = raw.request("HEAD", path_of(bucket, "k"))["last-modified"]
    headers = {name: value.replace("{modified}", modified) for name, value in headers.items()}
    answer = raw.request(method, path_of(bucket, "k"), headers=headers)
    assert answer.status == status
    if method == "GET" and status == 200:
        assert answer.body == BODY
    if method == "GET" and status == 412:
        assert answer.code == "PreconditionFailed"
    if status == 304:
        assert answer.body == b"" and answer["etag"] == TAG and answer["last-modified"] == modified


def test_a_304_leaves_the_connection_usable(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=BODY)
    target = path_of(bucket, "k")
    with raw.connect() as wire:
        for _ in range(3):
            assert wire.request("GET", target, raw.signed("GET", target, headers={"if-none-match": TAG})).status == 304
            assert wire.request("GET", target, raw.signed("GET", target)).body == BODY


def test_a_condition_comes_before_the_range(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=BODY)
    target = path_of(bucket, "k")
    assert raw.request("GET", target, headers={"range": "bytes=0-1", "if-match": TAG}).status == 206
    assert raw.request("GET", target, headers={"range": "bytes=0-1", "if-none-match": TAG}).status == 304
    assert raw.request("GET", target, headers={"range": "bytes=900-", "if-match": OTHER}).status == 412


def test_a_condition_on_a_key_that_is_not_there_is_404(raw, bucket):
    for headers in ({"if-match": "*"}, {"if-none-match": "*"}, {"if-modified-since": OLD}):
        assert raw.request("GET", path_of(bucket, "k"), headers=headers).refusal == (404, "NoSuchKey")


def test_put_if_none_match_star_creates_only_what_is_not_there(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")
    with refused(412, "PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
    assert body_of(s3, bucket, "k") == b"first"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.put_object(Bucket=bucket, Key="k", Body=b"third", IfNoneMatch="*")
    assert body_of(s3, bucket, "k") == b"third"


def test_a_condition_in_a_presigned_query_counts(raw, s3, bucket):
    """Signers put headers there, and who holds the URL must not lose an object to it."""
    once = path_of(bucket, "k") + "?If-None-Match=%2A"
    assert raw.presigned("PUT", once, b"first").status == 200
    assert raw.presigned("PUT", once, b"second").refusal == (412, "PreconditionFailed")
    assert raw.presigned("PUT", path_of(bucket, "k") + f"?if-match={TAG.strip(chr(34))}", b"x").status == 412
    assert body_of(s3, bucket, "k") == b"first"
    known = etag(b"first").strip('"')
    assert raw.presigned("PUT", path_of(bucket, "k") + f"?if-match={known}", b"third").status == 200
    # With the signature in a header it is a parameter like any other.
    assert raw.request("PUT", once, b"fourth").status == 200
    assert body_of(s3, bucket, "k") == b"fourth"


def test_put_if_none_match_takes_only_a_star(s3, bucket):
    with refused(501, "NotImplemented"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"v", IfNoneMatch=TAG)
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("size", [10, 200_000])
def test_put_if_match_replaces_only_that_version(s3, bucket, size):
    first = s3.put_object(Bucket=bucket, Key="k", Body=pattern(size, 1))["ETag"]
    second = s3.put_object(Bucket=bucket, Key="k", Body=pattern(size, 2), IfMatch=first)["ETag"]
    with refused(412, "PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="k", Body=pattern(size, 3), IfMatch=first)
    assert body_of(s3, bucket, "k") == pattern(size, 2)
    s3.put_object(Bucket=bucket, Key="k", Body=b"", IfMatch=second.strip('"'))


def test_put_if_match_on_nothing_is_no_such_key(s3, bucket):
    with refused(404, "NoSuchKey"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"v", IfMatch=TAG)
    assert not exists(s3, bucket, "k")


@pytest.mark.parametrize("size", [100, 100_000])
def test_of_50_racing_creations_exactly_one_wins(raw, s3, bucket, size):
    """`If-None-Match: *` from 50 connections at once, small bodies and bodies that go to an extent."""
    target = path_of(bucket, "k")

    def create(index: int) -> int:
        return raw.request("PUT", target, pattern(size, index), {"if-none-match": "*"}).status

    for _ in range(3):
        statuses = together(50, create)
        # S3 may answer 409 ConditionalRequestConflict to one that lost while another was in flight.
        assert statuses.count(200) == 1 and set(statuses) <= {200, 409, 412}, statuses
        assert body_of(s3, bucket, "k") == pattern(size, statuses.index(200))
        s3.delete_object(Bucket=bucket, Key="k")


def test_a_counter_kept_with_if_match_loses_no_increment(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="counter", Body=b"0")
    target = path_of(bucket, "counter")

    def increment(_: int) -> bool:
        for _ in range(5):
            while True:
                now = raw.request("GET", target)
                body = str(int(now.body) + 1).encode()
                status = raw.request("PUT", target, body, {"if-match": now["etag"]}).status
                assert status in (200, 409, 412)
                if status == 200:
                    break
        return True

    assert together(8, increment) == [True] * 8
    assert body_of(s3, bucket, "counter") == b"40"


def test_complete_if_none_match_star_creates_only_what_is_not_there(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    parts = [put_part(s3, bucket, "k", upload, 1, b"by parts")]
    s3.put_object(Bucket=bucket, Key="k", Body=b"in between")
    with refused(412, "PreconditionFailed"):
        complete(s3, bucket, "k", upload, parts, IfNoneMatch="*")
    assert body_of(s3, bucket, "k") == b"in between"
    s3.delete_object(Bucket=bucket, Key="k")
    complete(s3, bucket, "k", upload, parts, IfNoneMatch="*")
    assert body_of(s3, bucket, "k") == b"by parts"


def test_complete_if_match_replaces_only_that_version(s3, bucket):
    tag = s3.put_object(Bucket=bucket, Key="k", Body=b"old")["ETag"]
    upload = new_upload(s3, bucket, "k")
    parts = [put_part(s3, bucket, "k", upload, 1, b"by parts")]
    with refused(412, "PreconditionFailed"):
        complete(s3, bucket, "k", upload, parts, IfMatch=OTHER)
    assert body_of(s3, bucket, "k") == b"old"
    complete(s3, bucket, "k", upload, parts, IfMatch=tag)
    assert body_of(s3, bucket, "k") == b"by parts"


def test_of_20_racing_conditional_completions_exactly_one_wins(s3, bucket):
    uploads = [new_upload(s3, bucket, "k") for _ in range(20)]
    parts = [[put_part(s3, bucket, "k", upload, 1, str(i).encode())] for i, upload in enumerate(uploads)]
    answers = together(20, lambda i: complete(s3, bucket, "k", uploads[i], parts[i], IfNoneMatch="*"))
    won = [i for i, answer in enumerate(answers) if isinstance(answer, dict)]
    assert len(won) == 1, answers
    assert body_of(s3, bucket, "k") == str(won[0]).encode()
    lost = {answer.response["Error"]["Code"] for answer in answers if not isinstance(answer, dict)}
    assert lost <= {"PreconditionFailed", "ConditionalRequestConflict"}
