"""Buckets: their names, their life, their listing, and the settings that are not there yet."""

import hashlib
from base64 import b64encode

import pytest
from check import refused, together
from conftest import client_for, new_bucket_name
from wire import xml, xml_text

GOOD_NAMES = ["abc", "a" * 63, "a-b.c-d", "1234", "9to5", "a.b", "0-0"]
# Amazon S3 user guide, "General purpose bucket naming rules".
BAD_NAMES = [
    "ab", "a" * 64, "Upper", "under_score", "two..dots", "a-.b", "a.-b", "-lead", "trail-", ".lead", "trail.", "192.168.5.4",
    "xn--puny", "sthree-x", "x-s3alias", "x--ol-s3", "spa%20ce", "%C3%A9tude", "a%0Ab", "a+b", "%2e%2e",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_good_name_makes_a_bucket(s3, raw, name):
    assert raw.request("PUT", f"/{name}")["location"] == f"/{name}"
    assert s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 200
    s3.delete_bucket(Bucket=name)
    with refused(404, "404"):
        s3.head_bucket(Bucket=name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_s3_refuses_is_invalid(raw, name):
    assert raw.request("PUT", f"/{name}").refusal == (400, "InvalidBucketName")


def test_creating_it_again_is_a_conflict_and_keeps_its_objects(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    with refused(409, "BucketAlreadyOwnedByYou"):
        s3.create_bucket(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"v"


def test_of_many_creations_at_once_one_succeeds(raw):
    name = new_bucket_name()
    answers = together(16, lambda _: raw.request("PUT", f"/{name}").refusal)
    assert sorted(answers) == [(200, "")] + [(409, "BucketAlreadyOwnedByYou")] * 15
    raw.request("DELETE", f"/{name}")


def test_a_location_constraint_is_accepted_and_given_back(s3, endpoint):
    name = new_bucket_name()
    client = client_for(endpoint, region="eu-west-1")
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-west-1"
    s3.delete_bucket(Bucket=name)


def test_a_bucket_without_a_constraint_has_an_empty_location(s3, raw, bucket):
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    answer = raw.request("GET", f"/{bucket}?location")
    assert xml(answer.body).tag == "LocationConstraint" and not xml(answer.body).text


def test_a_bucket_with_tags_is_not_made_without_them(s3, raw):
    name = new_bucket_name()
    configuration = "<CreateBucketConfiguration><Tags>%s</Tags></CreateBucketConfiguration>"
    tag = "<Tag><Key>k</Key><Value>v</Value></Tag>"
    assert raw.request("PUT", f"/{name}", (configuration % tag).encode()).refusal == (501, "NotImplemented")
    with refused(404, "404"):
        s3.head_bucket(Bucket=name)
    assert raw.request("PUT", f"/{name}", (configuration % "").encode()).status == 200
    s3.delete_bucket(Bucket=name)


def test_a_create_body_is_short(raw):
    name = new_bucket_name()
    body = b"<CreateBucketConfiguration>%s</CreateBucketConfiguration>"
    padded = [body % (b" " * (length - len(body) + 2)) for length in (64 * 1024, 64 * 1024 + 1)]
    assert raw.request("PUT", f"/{name}", padded[1]).refusal == (400, "MaxMessageLengthExceeded")
    assert raw.request("PUT", f"/{name}", padded[0]).status == 200
    raw.request("DELETE", f"/{name}")


def test_a_create_body_that_is_no_xml_is_malformed(raw):
    name = new_bucket_name()
    for body in (b"<CreateBucket", b"hello", b"<Other/>"):
        assert raw.request("PUT", f"/{name}", body).refusal == (400, "MalformedXML")
    assert raw.request("HEAD", f"/{name}").status == 404


def test_a_bucket_with_an_object_is_not_empty(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    with refused(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"v"
    # A refused deletion does not stop writes.
    s3.put_object(Bucket=bucket, Key="k2", Body=b"v")


def test_a_deleted_bucket_is_gone_and_its_name_free(s3):
    name = new_bucket_name()
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"v")
    s3.delete_object(Bucket=name, Key="k")
    assert s3.delete_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 204
    for call in (s3.delete_bucket, s3.get_bucket_location):
        with refused(404, "NoSuchBucket"):
            call(Bucket=name)
    with refused(404, "NoSuchBucket"):
        s3.put_object(Bucket=name, Key="k", Body=b"v")
    s3.create_bucket(Bucket=name)
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 0
    s3.delete_bucket(Bucket=name)


def test_a_write_and_a_deletion_at_once_leave_the_object_or_no_bucket(raw):
    """Delete bucket stops writes, sees that all is empty, and commits or rolls back."""
    for _ in range(10):
        name = new_bucket_name()
        raw.request("PUT", f"/{name}")

        def race(index: int):
            if index == 0:
                return raw.request("DELETE", f"/{name}").refusal
            return raw.request("PUT", f"/{name}/key{index}", b"v").refusal

        deleted, *written = together(9, race)
        # A write that came while the deletion was undecided may be told to wait.
        assert set(written) <= {(200, ""), (404, "NoSuchBucket"), (409, "OperationAborted"), (503, "SlowDown")}
        stored = {f"key{i}" for i, answer in enumerate(written, 1) if answer == (200, "")}
        if deleted == (204, ""):
            assert not stored, "an acknowledged object went with its bucket"
            assert raw.request("HEAD", f"/{name}").status == 404
            continue
        assert deleted == (409, "BucketNotEmpty") and stored
        listed = {e.text for e in xml(raw.request("GET", f"/{name}?list-type=2").body).iter("Key")}
        assert listed == stored
        for key in stored:
            raw.request("DELETE", f"/{name}/{key}")
        assert raw.request("DELETE", f"/{name}").status == 204


# --- ListBuckets


@pytest.fixture
def five_buckets(s3):
    stem = new_bucket_name()
    names = [f"{stem}-{i}" for i in range(5)]
    for name in names:
        s3.create_bucket(Bucket=name)
    yield stem, names
    for name in names:
        s3.delete_bucket(Bucket=name)


def test_list_buckets_names_each_with_its_date(s3, five_buckets):
    stem, names = five_buckets
    answer = s3.list_buckets()
    listed = [b["Name"] for b in answer["Buckets"]]
    assert [name for name in listed if name.startswith(stem)] == names
    assert listed == sorted(listed)
    assert all(b["CreationDate"].year >= 2024 for b in answer["Buckets"])
    assert answer["Owner"]["ID"]


def test_list_buckets_by_prefix_and_page(s3, five_buckets):
    stem, names = five_buckets
    answer = s3.list_buckets(Prefix=stem + "-")
    assert [b["Name"] for b in answer["Buckets"]] == names
    assert answer["Prefix"] == stem + "-" and "ContinuationToken" not in answer
    found, token = [], {}
    while True:
        page = s3.list_buckets(Prefix=stem + "-", MaxBuckets=2, **token)
        assert len(page["Buckets"]) <= 2
        found += [b["Name"] for b in page["Buckets"]]
        if "ContinuationToken" not in page:
            break
        token = {"ContinuationToken": page["ContinuationToken"]}
    assert found == names
    pages = s3.get_paginator("list_buckets").paginate(Prefix=stem + "-", PaginationConfig={"PageSize": 1})
    assert [b["Name"] for page in pages for b in page.get("Buckets", [])] == names


def test_list_buckets_by_region(s3, raw):
    stem = new_bucket_name()
    s3.create_bucket(Bucket=stem + "-here")
    s3.create_bucket(Bucket=stem + "-there", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for region, names in (("eu-west-1", [stem + "-there"]), ("us-east-1", [stem + "-here"]), ("eu-west-2", [])):
        found = s3.list_buckets(Prefix=stem, BucketRegion=region)["Buckets"]
        assert [(b["Name"], b["BucketRegion"]) for b in found] == [(name, region) for name in names]
    for name in ("-here", "-there"):
        s3.delete_bucket(Bucket=stem + name)


def test_an_empty_list_buckets_token_is_none(s3, five_buckets):
    stem, names = five_buckets
    found = s3.list_buckets(Prefix=stem, ContinuationToken="")["Buckets"]
    assert [b["Name"] for b in found] == names


@pytest.mark.parametrize("value", ["0", "-1", "10001", "x"])
def test_max_buckets_outside_1_to_10000_is_an_invalid_argument(raw, value):
    assert raw.request("GET", f"/?max-buckets={value}").refusal == (400, "InvalidArgument")


def test_a_forged_list_buckets_token_is_an_invalid_argument(raw):
    assert raw.request("GET", "/?continuation-token=nonsense").refusal == (400, "InvalidArgument")


# --- settings that are not there yet

UNSET = {
    "object-lock": (404, "ObjectLockConfigurationNotFoundError"),
    "policy": (404, "NoSuchBucketPolicy"),
    "lifecycle": (404, "NoSuchLifecycleConfiguration"),
    "cors": (404, "NoSuchCORSConfiguration"),
    "tagging": (404, "NoSuchTagSet"),
    "encryption": (404, "ServerSideEncryptionConfigurationNotFoundError"),
}


def test_versioning_of_a_bucket_is_unset(s3, raw, bucket):
    answer = s3.get_bucket_versioning(Bucket=bucket)
    assert "Status" not in answer and "MFADelete" not in answer
    assert xml(raw.request("GET", f"/{bucket}?versioning").body).tag == "VersioningConfiguration"


@pytest.mark.parametrize("setting", UNSET)
def test_a_setting_that_is_unset_has_its_code(raw, bucket, setting):
    assert raw.request("GET", f"/{bucket}?{setting}").refusal == UNSET[setting]
    assert raw.request("GET", f"/{bucket}?{setting}=").refusal == UNSET[setting]


@pytest.mark.parametrize("setting", ["versioning", "location", *UNSET])
def test_a_setting_of_a_missing_bucket_is_no_such_bucket(raw, setting):
    assert raw.request("GET", f"/t-never-made?{setting}").refusal == (404, "NoSuchBucket")


BODIES = {
    "versioning": b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    "tagging": b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
}


@pytest.mark.parametrize("setting", ["versioning", *(name for name in UNSET if name != "policy"), "website", "replication", "notification", "logging"])
def test_putting_a_setting_is_not_implemented_and_changes_nothing(raw, bucket, setting):
    answer = raw.request("PUT", f"/{bucket}?{setting}", BODIES.get(setting, b"<Configuration/>"))
    assert answer.refusal == (501, "NotImplemented")
    if setting in UNSET:
        assert raw.request("GET", f"/{bucket}?{setting}").refusal == UNSET[setting]
    assert raw.request("GET", f"/{bucket}?list-type=2").status == 200


def test_what_is_not_implemented_is_called_by_its_name(raw, s3, bucket):
    """S3's message speaks of a header; only where there is one may ours."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    document = b"<Delete><Object><Key>k</Key><ETag>x</ETag></Object></Delete>"
    md5 = b64encode(hashlib.md5(document).digest()).decode()
    conditional = raw.request("POST", f"/{bucket}?delete", document, {"content-md5": md5})
    assert xml_text(conditional.body, "Error/Message") == "A condition on a key of DeleteObjects is not implemented."
    for method, target, what in (
        ("PUT", f"/{bucket}?cors", "PUT of ?cors"),
        ("GET", f"/{bucket}?inventory", "GET of ?inventory"),
        ("PUT", f"/{bucket}/k?tagging", "PUT of ?tagging"),
        ("GET", f"/{bucket}/k?attributes", "GET of ?attributes"),
        ("POST", f"/{bucket}/k?select&select-type=2", "POST of ?select"),
        ("POST", f"/{bucket}", "POST on a bucket without ?delete"),
        ("POST", f"/{bucket}/k", "POST on an object without ?uploads or ?uploadId"),
    ):
        answer = raw.request(method, target)
        assert answer.refusal == (501, "NotImplemented")
        assert xml_text(answer.body, "Message") == f"{what} is not implemented."
    answer = raw.request("PUT", f"/{bucket}/k", b"w", {"x-amz-tagging": "a=b"})
    assert answer.refusal == (501, "NotImplemented")
    assert "A header you provided" in xml_text(answer.body, "Message") and xml_text(answer.body, "Header")


def test_putting_a_setting_does_not_create_a_bucket(raw):
    name = new_bucket_name()
    answer = raw.request("PUT", f"/{name}?versioning", BODIES["versioning"])
    assert answer.refusal in [(501, "NotImplemented"), (404, "NoSuchBucket")]
    assert raw.request("HEAD", f"/{name}").status == 404


@pytest.mark.parametrize("setting", ["tagging", "acl", "retention", "legal-hold"])
def test_putting_a_setting_of_an_object_does_not_overwrite_it(s3, raw, bucket, setting):
    s3.put_object(Bucket=bucket, Key="k", Body=b"precious")
    answer = raw.request("PUT", f"/{bucket}/k?{setting}", b"<X/>")
    assert answer.refusal == (501, "NotImplemented")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"precious"


@pytest.mark.parametrize("setting", ["policy", "cors", "lifecycle", "tagging", "encryption", "website", "acl"])
def test_deleting_a_setting_does_not_delete_the_bucket(raw, bucket, setting):
    answer = raw.request("DELETE", f"/{bucket}?{setting}")
    assert answer.status in (204, 405, 501)
    assert raw.request("HEAD", f"/{bucket}").status == 200


@pytest.mark.parametrize("setting", ["tagging", "acl", "retention"])
def test_deleting_a_setting_of_an_object_does_not_delete_the_object(s3, raw, bucket, setting):
    s3.put_object(Bucket=bucket, Key="k", Body=b"precious")
    assert raw.request("DELETE", f"/{bucket}/k?{setting}").status in (204, 405, 501)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"precious"


def test_errors_have_all_four_elements(raw):
    answer = raw.request("GET", "/t-never-made/some/key")
    assert answer.refusal == (404, "NoSuchBucket")
    assert answer["content-type"] == "application/xml"
    assert xml_text(answer.body, "Message")
    assert xml_text(answer.body, "Resource") == "/t-never-made/some/key"
    assert xml_text(answer.body, "RequestId") == answer["x-amz-request-id"]
