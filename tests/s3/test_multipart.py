"""Multipart uploads: parts, completion, errors, listings, reading by part."""

import pytest
from check import (
    MIB,
    PART,
    body_of,
    complete,
    etag,
    exists,
    keys_of,
    multipart_etag,
    new_upload,
    pattern,
    put_part,
    refused,
    together,
    upload_parts,
)  # fmt: skip
from conftest import new_bucket_name
from sigv4 import encode
from wire import path_of, xml_text

NO_UPLOAD = "VXBsb2FkIHRoYXQgbmV2ZXIgd2FzIG1hZGU"


def test_parts_become_one_object(s3, bucket):
    bodies = [pattern(PART, 1), pattern(PART + 1, 2), pattern(1, 3)]
    options = {"ContentType": "text/x", "Metadata": {"a": "1"}, "CacheControl": "no-store"}
    answer = upload_parts(s3, bucket, "k", bodies, **options)
    assert (answer["Bucket"], answer["Key"], answer["ETag"]) == (bucket, "k", multipart_etag(bodies))
    assert answer["Location"].endswith(f"/{bucket}/k")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"".join(bodies)
    assert {name: got[name] for name in options} == options
    (entry,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert (entry["Size"], entry["ETag"]) == (2 * PART + 2, multipart_etag(bodies))


def test_one_small_part_is_enough(s3, bucket):
    assert upload_parts(s3, bucket, "k", [b"small"])["ETag"] == multipart_etag([b"small"])
    assert body_of(s3, bucket, "k") == b"small"


def test_one_empty_part_is_an_empty_object(s3, bucket):
    assert upload_parts(s3, bucket, "k", [b""])["ETag"] == multipart_etag([b""])
    assert body_of(s3, bucket, "k") == b""


def test_parts_come_in_any_order_and_with_gaps(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    parts = {n: put_part(s3, bucket, "k", upload, n, pattern(PART, n)) for n in (10_000, 7, 300)}
    complete(s3, bucket, "k", upload, [parts[7], parts[300], parts[10_000]])
    assert body_of(s3, bucket, "k") == pattern(PART, 7) + pattern(PART, 300) + pattern(PART, 10_000)


def test_parts_that_completion_leaves_out_are_not_in_the_object(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    parts = [put_part(s3, bucket, "k", upload, n, pattern(PART, n)) for n in (1, 2, 3)]
    answer = complete(s3, bucket, "k", upload, [parts[0], parts[2]])
    assert answer["ETag"] == multipart_etag([pattern(PART, 1), pattern(PART, 3)])
    assert body_of(s3, bucket, "k") == pattern(PART, 1) + pattern(PART, 3)


def test_a_part_uploaded_again_replaces_the_first(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    first = put_part(s3, bucket, "k", upload, 1, pattern(PART, 1))
    second = put_part(s3, bucket, "k", upload, 1, pattern(PART + 9, 2))
    (listed,) = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"]
    assert (listed["ETag"], listed["Size"]) == (second["ETag"], PART + 9)
    with refused(400, "InvalidPart"):
        complete(s3, bucket, "k", upload, [first])
    complete(s3, bucket, "k", upload, [second])
    assert body_of(s3, bucket, "k") == pattern(PART + 9, 2)


def test_parts_uploaded_at_once_do_not_disturb_each_other(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    parts = together(12, lambda i: put_part(s3, bucket, "k", upload, i + 1, pattern(PART, i)))
    complete(s3, bucket, "k", upload, parts)
    assert body_of(s3, bucket, "k") == b"".join(pattern(PART, i) for i in range(12))


def test_one_part_uploaded_by_many_at_once_is_one_of_them(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    together(10, lambda i: put_part(s3, bucket, "k", upload, 1, pattern(100_000, i)))
    (listed,) = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"]
    complete(s3, bucket, "k", upload, [{"PartNumber": 1, "ETag": listed["ETag"]}])
    body = body_of(s3, bucket, "k")
    assert body in [pattern(100_000, i) for i in range(10)] and listed["ETag"] == etag(body)


def test_an_upload_is_not_visible_before_it_is_completed(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    upload = new_upload(s3, bucket, "k")
    parts = [put_part(s3, bucket, "k", upload, 1, b"after")]
    assert body_of(s3, bucket, "k") == b"before"
    complete(s3, bucket, "k", upload, parts)
    assert body_of(s3, bucket, "k") == b"after"


def test_two_uploads_of_one_key_are_apart(s3, bucket):
    one, two = new_upload(s3, bucket, "k"), new_upload(s3, bucket, "k")
    assert one != two
    parts_one = [put_part(s3, bucket, "k", one, 1, b"one")]
    parts_two = [put_part(s3, bucket, "k", two, 1, b"two")]
    complete(s3, bucket, "k", one, parts_one)
    assert body_of(s3, bucket, "k") == b"one"
    complete(s3, bucket, "k", two, parts_two)
    assert body_of(s3, bucket, "k") == b"two"


def test_completing_again_answers_as_the_first_time(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    parts = [put_part(s3, bucket, "k", upload, 1, b"body")]
    first = complete(s3, bucket, "k", upload, parts)
    again = complete(s3, bucket, "k", upload, parts)
    assert (again["ETag"], again["Key"]) == (first["ETag"], first["Key"])
    assert body_of(s3, bucket, "k") == b"body"


def test_completing_at_once_from_many_connections_makes_one_object(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    bodies = [pattern(PART, 1), pattern(10, 2)]
    parts = [put_part(s3, bucket, "k", upload, n, body) for n, body in enumerate(bodies, 1)]
    answers = together(8, lambda _: complete(s3, bucket, "k", upload, parts))
    assert {answer["ETag"] for answer in answers} == {multipart_etag(bodies)}
    assert body_of(s3, bucket, "k") == b"".join(bodies)


def test_a_completed_upload_takes_no_more_parts_and_is_not_listed(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    complete(s3, bucket, "k", upload, [put_part(s3, bucket, "k", upload, 1, b"body")])
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    with refused(404, "NoSuchUpload"):
        put_part(s3, bucket, "k", upload, 2, b"late")
    with refused(404, "NoSuchUpload"):
        s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)


# --- errors


def test_a_part_but_the_last_under_5_mib_is_too_small(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    parts = [put_part(s3, bucket, "k", upload, n, b"small") for n in (1, 2)]
    with refused(400, "EntityTooSmall"):
        complete(s3, bucket, "k", upload, parts)
    assert not exists(s3, bucket, "k")
    # The upload is still there, and can be completed otherwise.
    complete(s3, bucket, "k", upload, parts[1:])
    assert body_of(s3, bucket, "k") == b"small"


def test_exactly_5_mib_is_large_enough_and_a_byte_less_is_not(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    last = put_part(s3, bucket, "k", upload, 2, b"end")
    below = put_part(s3, bucket, "k", upload, 1, pattern(PART - 1))
    with refused(400, "EntityTooSmall"):
        complete(s3, bucket, "k", upload, [below, last])
    exact = put_part(s3, bucket, "k", upload, 1, pattern(PART))
    complete(s3, bucket, "k", upload, [exact, last])
    assert body_of(s3, bucket, "k") == pattern(PART) + b"end"


def test_completion_with_a_wrong_etag_or_missing_part_is_an_invalid_part(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    part = put_part(s3, bucket, "k", upload, 1, b"body")
    for parts in (
        [part | {"ETag": etag(b"other")}],
        [part | {"ETag": "nonsense"}],
        [part | {"PartNumber": 2}],
        [part, {"PartNumber": 2, "ETag": part["ETag"]}],
    ):
        with refused(400, "InvalidPart"):
            complete(s3, bucket, "k", upload, parts)
    assert not exists(s3, bucket, "k")


def test_completion_out_of_order_is_refused(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    one, two = (put_part(s3, bucket, "k", upload, n, pattern(PART, n)) for n in (1, 2))
    for parts in ([two, one], [one, one], [one, two, two]):
        with refused(400, "InvalidPartOrder"):
            complete(s3, bucket, "k", upload, parts)
    assert not exists(s3, bucket, "k")


def test_completion_without_parts_is_malformed(s3, raw, bucket):
    upload = new_upload(s3, bucket, "k")
    with refused(400, "MalformedXML"):
        complete(s3, bucket, "k", upload, [])
    target = f"{path_of(bucket, 'k')}?uploadId={encode(upload)}"
    for body in (b"", b"<CompleteMultipartUpload/>", b"<CompleteMultipartUpload><Part/></CompleteMultipartUpload>"):
        assert raw.request("POST", target, body).refusal == (400, "MalformedXML")
    assert not exists(s3, bucket, "k")


def test_completion_takes_etags_with_and_without_quotes(s3, raw, bucket):
    upload = new_upload(s3, bucket, "k")
    tags = [put_part(s3, bucket, "k", upload, n, pattern(PART, n))["ETag"].strip('"') for n in (1, 2)]
    body = (
        f"<CompleteMultipartUpload><Part><ETag>{tags[0]}</ETag><PartNumber>1</PartNumber></Part>"
        f"<Part><PartNumber>2</PartNumber><ETag>&quot;{tags[1]}&quot;</ETag></Part></CompleteMultipartUpload>"
    )
    answer = raw.request("POST", f"{path_of(bucket, 'k')}?uploadId={encode(upload)}", body.encode())
    assert answer.status == 200
    assert xml_text(answer.body, "ETag") == multipart_etag([pattern(PART, 1), pattern(PART, 2)])


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "", "1.5", "99999999999999999999"])
def test_a_part_number_outside_1_to_10000_is_an_invalid_argument(s3, raw, bucket, number):
    upload = new_upload(s3, bucket, "k")
    answer = raw.request("PUT", f"{path_of(bucket, 'k')}?partNumber={number}&uploadId={encode(upload)}", b"v")
    assert answer.refusal == (400, "InvalidArgument")
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)


@pytest.mark.parametrize(
    "upload", [NO_UPLOAD, "x", "a" * 2000, "../../etc", "é"], ids=["plausible", "short", "long", "path", "utf8"]
)
def test_an_unknown_upload_is_no_such_upload(raw, s3, bucket, upload):
    id = encode(upload)
    target = path_of(bucket, "k")
    done = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"
    assert raw.request("PUT", f"{target}?partNumber=1&uploadId={id}", b"v").refusal == (404, "NoSuchUpload")
    assert raw.request("POST", f"{target}?uploadId={id}", done).refusal == (404, "NoSuchUpload")
    assert raw.request("GET", f"{target}?uploadId={id}").refusal == (404, "NoSuchUpload")
    assert raw.request("DELETE", f"{target}?uploadId={id}").refusal == (404, "NoSuchUpload")
    assert not exists(s3, bucket, "k")


def test_an_upload_id_belongs_to_its_key_and_bucket(s3, bucket, second_bucket):
    upload = new_upload(s3, bucket, "k")
    for where in ((bucket, "other"), (second_bucket, "k")):
        with refused(404, "NoSuchUpload"):
            put_part(s3, *where, upload, 1, b"v")
        with refused(404, "NoSuchUpload"):
            s3.abort_multipart_upload(Bucket=where[0], Key=where[1], UploadId=upload)
    put_part(s3, bucket, "k", upload, 1, b"v")


def test_uploads_to_a_missing_bucket_are_no_such_bucket(s3):
    with refused(404, "NoSuchBucket"):
        new_upload(s3, "t-never-made", "k")
    with refused(404, "NoSuchBucket"):
        s3.list_multipart_uploads(Bucket="t-never-made")


def test_a_part_with_a_wrong_digest_is_refused_and_not_listed(s3, raw, bucket):
    upload = new_upload(s3, bucket, "k")
    target = f"{path_of(bucket, 'k')}?partNumber=1&uploadId={encode(upload)}"
    for size in (10, 100_000):
        answer = raw.request("PUT", target, pattern(size), {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="})
        assert answer.refusal == (400, "BadDigest")
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)


def test_an_aborted_upload_is_gone(s3, bucket):
    upload = new_upload(s3, bucket, "k")
    part = put_part(s3, bucket, "k", upload, 1, pattern(PART))
    answer = s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    for call in (
        lambda: put_part(s3, bucket, "k", upload, 2, b"late"),
        lambda: complete(s3, bucket, "k", upload, [part]),
        lambda: s3.list_parts(Bucket=bucket, Key="k", UploadId=upload),
    ):
        with refused(404, "NoSuchUpload"):
            call()
    assert not exists(s3, bucket, "k")


def test_abort_and_complete_at_once_leave_all_or_nothing(s3, bucket):
    for round in range(5):
        key = f"k{round}"
        upload = new_upload(s3, bucket, key)
        parts = [put_part(s3, bucket, key, upload, 1, b"body")]

        def race(index: int):
            if index == 0:
                return s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
            return complete(s3, bucket, key, upload, parts)

        _, completed = together(2, race)
        assert exists(s3, bucket, key) == isinstance(completed, dict)


# --- copying into a part


def test_parts_copied_from_other_objects(s3, bucket, second_bucket):
    source = pattern(12 * MIB)
    s3.put_object(Bucket=second_bucket, Key="from here", Body=source)
    upload = new_upload(s3, bucket, "k")
    common = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    origin = {"Bucket": second_bucket, "Key": "from here"}
    spans = [(0, PART - 1), (PART + 3, 2 * PART + 100), (12 * MIB - 1, 12 * MIB - 1)]
    parts = []
    for number, (first, last) in enumerate(spans, 1):
        span = f"bytes={first}-{last}"
        copied = s3.upload_part_copy(**common, PartNumber=number, CopySource=origin, CopySourceRange=span)
        assert copied["CopyPartResult"]["ETag"] == etag(source[first : last + 1])
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    complete(s3, bucket, "k", upload, parts)
    assert body_of(s3, bucket, "k") == b"".join(source[first : last + 1] for first, last in spans)


def test_a_part_copied_without_a_range_is_the_whole_source(s3, bucket):
    s3.put_object(Bucket=bucket, Key="from", Body=pattern(70_000))
    upload = new_upload(s3, bucket, "k")
    copied = s3.upload_part_copy(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, CopySource=f"{bucket}/from")
    # What was copied does not follow its source.
    s3.delete_object(Bucket=bucket, Key="from")
    complete(s3, bucket, "k", upload, [{"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}])
    assert body_of(s3, bucket, "k") == pattern(70_000)


@pytest.mark.parametrize("span", ["0-2", "bytes=2-1", "bytes=0-", "bytes=-3", "bytes=a-b", "bytes=0-1,3-4", "bytes=0"])
def test_a_copy_range_must_have_both_ends(raw, s3, bucket, span):
    s3.put_object(Bucket=bucket, Key="from", Body=b"0123456789")
    upload = new_upload(s3, bucket, "k")
    target = f"{path_of(bucket, 'k')}?partNumber=1&uploadId={encode(upload)}"
    headers = {"x-amz-copy-source": f"/{bucket}/from", "x-amz-copy-source-range": span}
    assert raw.request("PUT", target, headers=headers).refusal == (400, "InvalidArgument")


@pytest.mark.parametrize(
    "span,code", [("bytes=0-10", "InvalidArgument"), ("bytes=10-12", "InvalidRequest"), ("bytes=100-200", "InvalidRequest")]
)
def test_a_copy_range_past_the_end_is_refused(s3, raw, bucket, span, code):
    s3.put_object(Bucket=bucket, Key="from", Body=b"0123456789")
    upload = new_upload(s3, bucket, "k")
    target = f"{path_of(bucket, 'k')}?partNumber=1&uploadId={encode(upload)}"
    headers = {"x-amz-copy-source": f"/{bucket}/from", "x-amz-copy-source-range": span}
    answer = raw.request("PUT", target, headers=headers)
    assert answer.refusal == (400, code)
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)


def test_a_copied_part_needs_its_source_and_its_upload(s3, bucket):
    s3.put_object(Bucket=bucket, Key="from", Body=b"v")
    upload = new_upload(s3, bucket, "k")
    with refused(404, "NoSuchKey"):
        s3.upload_part_copy(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, CopySource=f"{bucket}/nothing")
    with refused(404, "NoSuchUpload"):
        s3.upload_part_copy(Bucket=bucket, Key="k", UploadId=NO_UPLOAD, PartNumber=1, CopySource=f"{bucket}/from")
    with refused(412, "PreconditionFailed"):
        s3.upload_part_copy(
            Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, CopySource=f"{bucket}/from",
            CopySourceIfMatch=etag(b"other"),
        )  # fmt: skip


# --- listings


def test_list_parts_pages_through_them(s3, bucket):
    upload = new_upload(s3, bucket, "k", StorageClass="STANDARD")
    numbers = [1, 2, 5, 100, 101, 9999, 10_000]
    for number in numbers:
        put_part(s3, bucket, "k", upload, number, pattern(number))
    whole = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)
    assert [(p["PartNumber"], p["Size"], p["ETag"]) for p in whole["Parts"]] == [
        (number, number, etag(pattern(number))) for number in numbers
    ]
    assert (whole["IsTruncated"], whole["MaxParts"], whole["UploadId"], whole["Key"]) == (False, 1000, upload, "k")
    assert whole["StorageClass"] == "STANDARD" and "ID" in whole["Owner"] and "ID" in whole["Initiator"]
    page = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload, MaxParts=3)
    assert [p["PartNumber"] for p in page["Parts"]] == [1, 2, 5]
    assert (page["IsTruncated"], page["NextPartNumberMarker"], page["MaxParts"]) == (True, 5, 3)
    paginator = s3.get_paginator("list_parts")
    pages = paginator.paginate(Bucket=bucket, Key="k", UploadId=upload, PaginationConfig={"PageSize": 2})
    assert [p["PartNumber"] for page in pages for p in page["Parts"]] == numbers
    rest = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload, PartNumberMarker=100)
    assert [p["PartNumber"] for p in rest["Parts"]] == [101, 9999, 10_000]


@pytest.mark.parametrize("parameter", ["max-parts=-1", "max-parts=%2B1", "max-parts=x", "part-number-marker=x", "part-number-marker=-1"])
def test_list_parts_with_a_bad_parameter_is_an_invalid_argument(raw, s3, bucket, parameter):
    upload = new_upload(s3, bucket, "k")
    answer = raw.request("GET", f"{path_of(bucket, 'k')}?uploadId={encode(upload)}&{parameter}")
    assert answer.refusal == (400, "InvalidArgument")


def test_list_uploads_pages_by_key_and_upload(s3, bucket):
    made = [(key, new_upload(s3, bucket, key)) for key in ("b", "a", "c/1", "c/2", "a", "a")]
    listed, markers = [], {}
    while True:
        page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=2, **markers)
        assert len(page["Uploads"]) <= 2
        listed += [(u["Key"], u["UploadId"]) for u in page["Uploads"]]
        if not page["IsTruncated"]:
            break
        markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    assert sorted(listed) == sorted(made) and len(set(listed)) == 6
    assert [key for key, _ in listed] == sorted(key for key, _ in made)
    # Uploads of one key come in the order in which they were begun.
    assert [id for key, id in listed if key == "a"] == [id for key, id in made if key == "a"]


def test_list_uploads_with_prefix_and_delimiter(s3, bucket):
    for key in ("a/1", "a/2", "a/deep/1", "b", "c/1"):
        new_upload(s3, bucket, key)
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [u["Key"] for u in page["Uploads"]] == ["b"]
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["a/", "c/"]
    page = s3.list_multipart_uploads(Bucket=bucket, Prefix="a/", Delimiter="/")
    assert [u["Key"] for u in page["Uploads"]] == ["a/1", "a/2"]
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["a/deep/"]
    page = s3.list_multipart_uploads(Bucket=bucket, Prefix="nothing")
    assert "Uploads" not in page and page["IsTruncated"] is False


def test_list_uploads_after_a_key_marker(s3, bucket):
    for key in ("a", "b", "c"):
        new_upload(s3, bucket, key)
    page = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a")
    assert [u["Key"] for u in page["Uploads"]] == ["b", "c"]


def test_list_uploads_names_class_owner_and_time(s3, bucket):
    upload = new_upload(s3, bucket, "k", StorageClass="REDUCED_REDUNDANCY")
    (entry,) = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert (entry["UploadId"], entry["StorageClass"]) == (upload, "REDUCED_REDUNDANCY")
    assert "ID" in entry["Owner"] and "ID" in entry["Initiator"] and entry["Initiated"].year >= 2024


def test_a_bucket_with_an_open_upload_can_be_deleted(s3):
    """S3 refuses only when there are objects: an upload that was never completed is none."""
    name = new_bucket_name()
    s3.create_bucket(Bucket=name)
    upload = new_upload(s3, name, "k")
    put_part(s3, name, "k", upload, 1, b"part")
    assert keys_of(s3, name) == []
    s3.delete_bucket(Bucket=name)
    with refused(404, "NoSuchBucket"):
        put_part(s3, name, "k", upload, 1, b"part")


# --- reading by part


def test_a_part_can_be_read_by_its_number(s3, bucket):
    bodies = [pattern(PART, 1), pattern(PART + 5, 2), pattern(9, 3)]
    tag = upload_parts(s3, bucket, "k", bodies)["ETag"]
    total, first = sum(map(len, bodies)), 0
    for number, body in enumerate(bodies, 1):
        got = s3.get_object(Bucket=bucket, Key="k", PartNumber=number)
        head = s3.head_object(Bucket=bucket, Key="k", PartNumber=number)
        for answer in (got, head):
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
            assert (answer["PartsCount"], answer["ContentLength"], answer["ETag"]) == (3, len(body), tag)
            assert answer["ContentRange"] == f"bytes {first}-{first + len(body) - 1}/{total}"
        assert got["Body"].read() == body
        first += len(body)


def test_parts_are_renumbered_by_their_order_in_the_object(s3, bucket):
    """GetObject by partNumber counts the parts of the completed object."""
    upload = new_upload(s3, bucket, "k")
    parts = [put_part(s3, bucket, "k", upload, n, pattern(PART, n)) for n in (1, 2)]
    complete(s3, bucket, "k", upload, parts)
    assert body_of(s3, bucket, "k", PartNumber=2) == pattern(PART, 2)


def test_a_part_that_the_object_does_not_have_is_refused(raw, s3, bucket):
    upload_parts(s3, bucket, "k", [b"only"])
    s3.put_object(Bucket=bucket, Key="plain", Body=b"plain")
    for key in ("k", "plain"):
        answer = raw.request("GET", f"{path_of(bucket, key)}?partNumber=2")
        # The second is what ceph/s3-tests wants.
        assert answer.refusal in [(416, "InvalidPartNumber"), (400, "InvalidPart")]
        assert raw.request("HEAD", f"{path_of(bucket, key)}?partNumber=2").status == answer.status


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x"])
def test_a_part_number_to_read_must_be_1_to_10000(raw, s3, bucket, number):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    assert raw.request("GET", f"{path_of(bucket, 'k')}?partNumber={number}").refusal == (400, "InvalidArgument")


def test_part_1_of_an_object_put_in_one_piece_is_all_of_it(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="k", PartNumber=1)
    assert got["Body"].read() == b"0123456789" and "PartsCount" not in got


def test_range_and_part_number_together_are_refused(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    answer = raw.request("GET", f"{path_of(bucket, 'k')}?partNumber=1", headers={"range": "bytes=0-1"})
    assert answer.refusal == (400, "InvalidRequest")


def test_a_part_number_is_digits(raw, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    upload = new_upload(s3, bucket, "k")
    for number in ("%2B1", "%201", "1.0", "0x1"):
        target = f"{path_of(bucket, 'k')}?partNumber={number}"
        assert raw.request("GET", target).refusal == (400, "InvalidArgument")
        assert raw.request("PUT", f"{target}&uploadId={encode(upload)}", b"v").refusal == (400, "InvalidArgument")
    part = put_part(s3, bucket, "k", upload, 1, b"body")
    document = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{part['ETag']}</ETag></Part>"
    document = f"{document}</CompleteMultipartUpload>".encode()
    target = f"{path_of(bucket, 'k')}?uploadId={encode(upload)}"
    assert raw.request("POST", target, document, {"x-amz-mp-object-size": "+4"}).refusal == (400, "InvalidRequest")
