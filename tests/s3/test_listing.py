"""ListObjects, ListObjectsV2 and ListObjectVersions, against a model and by hand."""

import random
from urllib.parse import unquote_to_bytes

import pytest
from check import etag, keys_of, put_many, refused
from conftest import EXTERNAL, new_bucket_name, remove_bucket
from sigv4 import encode
from wire import xml


def utf8(text: str) -> bytes:
    return text.encode()


def entries_of(keys, prefix: str = "", delimiter: str = "", after: str = "") -> list[str]:
    """The model: keys and common prefixes of a listing from its beginning to its end, in order."""
    found = []
    for key in sorted(keys, key=utf8):
        if not key.startswith(prefix) or utf8(key) <= utf8(after):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if cut < 0 else key[: cut + len(delimiter)]
        if entry not in found[-1:]:
            found.append(entry)
    return found


def page_entries(page: dict) -> list[str]:
    """Keys and common prefixes of a page, merged; each of the two lists must be in order by itself."""
    keys = [entry["Key"] for entry in page.get("Contents", page.get("Versions", []))]
    prefixes = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
    assert keys == sorted(keys, key=utf8) and prefixes == sorted(prefixes, key=utf8)
    return sorted(keys + prefixes, key=utf8)


def walk(call, next_page, limit: int) -> list[str]:
    """All entries of all pages. Every page but the last is full."""
    entries, options = [], {}
    while True:
        page = call(**options)
        found = page_entries(page)
        assert found == [] or entries == [] or utf8(entries[-1]) < utf8(found[0])
        entries += found
        if not page["IsTruncated"]:
            assert len(found) <= limit
            return entries
        assert len(found) == limit
        options = next_page(page)


def walk_v2(s3, bucket: str, limit: int, **options) -> list[str]:
    def call(**token):
        page = s3.list_objects_v2(Bucket=bucket, MaxKeys=limit, **options, **token)
        assert page["KeyCount"] == len(page_entries(page))
        assert page["IsTruncated"] == ("NextContinuationToken" in page)
        return page

    return walk(call, lambda page: {"ContinuationToken": page["NextContinuationToken"]}, limit)


def walk_v1(s3, bucket: str, limit: int, **options) -> list[str]:
    def next_page(page):
        # S3 gives NextMarker only with a delimiter; without one the last key is the marker.
        return {"Marker": page["NextMarker"] if options.get("Delimiter") else page["Contents"][-1]["Key"]}

    return walk(lambda **marker: s3.list_objects(Bucket=bucket, MaxKeys=limit, **options, **marker), next_page, limit)


def walk_versions(s3, bucket: str, limit: int, **options) -> list[str]:
    def next_page(page):
        markers = {"KeyMarker": page["NextKeyMarker"]}
        return markers | ({"VersionIdMarker": page["NextVersionIdMarker"]} if "NextVersionIdMarker" in page else {})

    return walk(lambda **m: s3.list_object_versions(Bucket=bucket, MaxKeys=limit, **options, **m), next_page, limit)


PIECES = ["a", "b", "/", "//", "-", ".", "é", "ｚ", "😀", "ab", "0", " "]


@pytest.mark.parametrize("seed", range(6))
def test_random_key_sets_list_as_the_model_says(s3, raw, bucket, seed):
    """Keys of few pieces, so that prefixes and delimiters meet often; a page size for each query."""
    dice = random.Random(seed)
    keys = sorted({"".join(dice.choices(PIECES, k=dice.randint(1, 6))) for _ in range(120)})
    put_many(raw, bucket, keys)
    for _ in range(12):
        prefix = "".join(dice.choices(PIECES, k=dice.choice([0, 0, 1, 2])))
        delimiter = dice.choice(["", "/", "//", "a", "ab", "😀", "é", "b/"])
        limit = dice.choice([1, 2, 3, 7, 50, 1000])
        options = {name: value for name, value in (("Prefix", prefix), ("Delimiter", delimiter)) if value}
        expected = entries_of(keys, prefix, delimiter)
        if len(expected) // limit > 40:
            limit = 10
        query = f"prefix={prefix!r} delimiter={delimiter!r} limit={limit}"
        assert walk_v2(s3, bucket, limit, **options) == expected, query
        assert walk_v1(s3, bucket, limit, **options) == expected, query
        assert walk_versions(s3, bucket, limit, **options) == expected, query
        after = dice.choice([*keys, "a", "b~", "", "\U0010ffff"])
        options = {"Prefix": prefix} if prefix else {}
        expected = entries_of(keys, prefix, "", after)
        assert walk_v2(s3, bucket, 50, StartAfter=after, **options) == expected, (query, after)
        assert walk_v1(s3, bucket, 1000, Marker=after, **options) == expected, (query, after)


def test_order_is_by_bytes_of_utf8(s3, raw, bucket):
    """UTF-16 would put the emoji (a surrogate pair) before U+FF5A; a locale would put é beside e."""
    keys = ["Z", "a", "e", "z", "~", "é", "ｚ", "😀", "\U0010ffff"]
    put_many(raw, bucket, keys[::-1])
    assert keys_of(s3, bucket) == keys
    assert walk_v1(s3, bucket, 2) == keys


def test_an_empty_bucket(s3, bucket):
    page = s3.list_objects_v2(Bucket=bucket)
    assert (page["KeyCount"], page["IsTruncated"], page["MaxKeys"], page["Name"]) == (0, False, 1000, bucket)
    assert "Contents" not in page and "CommonPrefixes" not in page
    page = s3.list_objects(Bucket=bucket)
    assert page["IsTruncated"] is False and "Contents" not in page


def test_what_an_entry_says(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    (entry,) = s3.list_objects(Bucket=bucket)["Contents"]
    assert (entry["Size"], entry["ETag"], entry["StorageClass"]) == (4, etag(b"body"), "STANDARD")
    assert entry["Owner"]["ID"]
    assert entry["LastModified"].replace(microsecond=0) == s3.head_object(Bucket=bucket, Key="k")["LastModified"]


def test_v2_names_the_owner_only_when_asked(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket, FetchOwner=False)["Contents"][0]
    assert s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]["ID"]


@pytest.fixture(scope="module")
def thousand(raw, s3):
    """A bucket of 1,005 keys that many tests read."""
    name = new_bucket_name()
    s3.create_bucket(Bucket=name)
    keys = [f"{i % 5}/{i:05}" for i in range(1005)]
    put_many(raw, name, keys)
    yield name, sorted(keys)
    if EXTERNAL:
        remove_bucket(s3, name)


def test_a_page_has_1000_keys_at_most(s3, thousand):
    bucket, keys = thousand
    for options in ({}, {"MaxKeys": 1000}, {"MaxKeys": 1001}, {"MaxKeys": 2_000_000}):
        for page in (s3.list_objects_v2(Bucket=bucket, **options), s3.list_objects(Bucket=bucket, **options)):
            assert (page["IsTruncated"], page["MaxKeys"]) == (True, 1000)
            assert page_entries(page) == keys[:1000]
    assert keys_of(s3, bucket) == keys


def test_max_keys_exactly_at_the_end_is_not_truncated(s3, thousand):
    bucket, keys = thousand
    page = s3.list_objects_v2(Bucket=bucket, Prefix="0/", MaxKeys=201)
    assert (page["IsTruncated"], page["KeyCount"]) == (False, 201)
    page = s3.list_objects_v2(Bucket=bucket, Prefix="0/", MaxKeys=200)
    assert (page["IsTruncated"], page["KeyCount"]) == (True, 200)
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/", MaxKeys=5)
    assert (page["IsTruncated"], page["KeyCount"]) == (False, 5)


def test_max_keys_0_is_an_empty_page_that_is_not_truncated(s3, thousand):
    bucket, _ = thousand
    for page in (
        s3.list_objects_v2(Bucket=bucket, MaxKeys=0),
        s3.list_objects(Bucket=bucket, MaxKeys=0),
        s3.list_object_versions(Bucket=bucket, MaxKeys=0),
    ):
        assert (page["IsTruncated"], page["MaxKeys"], page_entries(page)) == (False, 0, [])


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "99999999999999999999", "%00", "%2B5", "%205", "2147483648"])
def test_max_keys_that_is_no_number_is_an_invalid_argument(raw, bucket, value):
    for query in (f"max-keys={value}", f"list-type=2&max-keys={value}", f"versions&max-keys={value}"):
        assert raw.request("GET", f"/{bucket}?{query}").refusal == (400, "InvalidArgument"), query


def test_max_keys_may_be_as_large_as_s3_has_it(raw, bucket):
    assert raw.request("GET", f"/{bucket}?max-keys=2147483647").status == 200


def test_a_list_type_that_is_none_is_an_invalid_argument(raw, bucket):
    for value in ("3", "0", "02", "v2"):
        assert raw.request("GET", f"/{bucket}?list-type={value}").refusal == (400, "InvalidArgument")


def test_paging_with_common_prefixes_one_at_a_time(s3, thousand):
    bucket, _ = thousand
    expected = ["0/", "1/", "2/", "3/", "4/"]
    assert walk_v2(s3, bucket, 1, Delimiter="/") == expected
    assert walk_v1(s3, bucket, 1, Delimiter="/") == expected
    assert walk_versions(s3, bucket, 1, Delimiter="/") == expected


def test_next_marker_can_be_a_common_prefix(s3, thousand):
    bucket, _ = thousand
    page = s3.list_objects(Bucket=bucket, Delimiter="/", MaxKeys=2)
    assert (page["NextMarker"], page["IsTruncated"]) == ("1/", True)


def test_keys_deleted_and_added_between_pages_do_not_disturb_the_rest(s3, raw, bucket):
    put_many(raw, bucket, [f"{i:03}" for i in range(0, 100, 2)])
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=10)
    s3.delete_object(Bucket=bucket, Key=page["Contents"][-1]["Key"])
    s3.delete_object(Bucket=bucket, Key="020")
    s3.put_object(Bucket=bucket, Key="025", Body=b"")
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=4, ContinuationToken=page["NextContinuationToken"])
    assert page_entries(page) == ["022", "024", "025", "026"]


def test_a_token_wins_over_start_after(s3, raw, bucket):
    put_many(raw, bucket, list("abcdef"))
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=2, StartAfter="a")
    assert page_entries(page) == ["b", "c"] and page["StartAfter"] == "a"
    token = page["NextContinuationToken"]
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=2, StartAfter="a", ContinuationToken=token)
    assert page_entries(page) == ["d", "e"] and page["ContinuationToken"] == token


# --- tokens


@pytest.mark.parametrize("token", ["x", "a" * 3000, "%00", "bm90IGEgdG9rZW4", "1/ZIBERISH=="], ids=range(5))
def test_a_token_that_was_never_given_is_an_invalid_argument(raw, thousand, token):
    bucket, _ = thousand
    answer = raw.request("GET", f"/{bucket}?list-type=2&continuation-token={token}")
    assert answer.refusal == (400, "InvalidArgument")


def test_a_changed_token_is_an_invalid_argument(raw, s3, thousand):
    bucket, _ = thousand
    token = s3.list_objects_v2(Bucket=bucket, MaxKeys=7)["NextContinuationToken"]
    for at in range(len(token)):
        other = "A" if token[at] != "A" else "B"
        changed = token[:at] + other + token[at + 1 :]
        answer = raw.request("GET", f"/{bucket}?list-type=2&max-keys=1&continuation-token={encode(changed)}")
        # The last character of base64 may hold bits that decode to nothing.
        if at < len(token.rstrip("=")) - 1:
            assert answer.refusal == (400, "InvalidArgument"), (token, changed)


def test_a_token_of_another_bucket_is_an_invalid_argument(raw, s3, thousand, bucket):
    """ATTACKS: nobody may carry a place in one bucket into another."""
    token = s3.list_objects_v2(Bucket=thousand[0], MaxKeys=7)["NextContinuationToken"]
    put_many(raw, bucket, thousand[1][:20])
    answer = raw.request("GET", f"/{bucket}?list-type=2&continuation-token={encode(token)}")
    assert answer.refusal == (400, "InvalidArgument")


def test_a_token_does_not_show_the_key(s3, raw, bucket):
    put_many(raw, bucket, ["confidential-1", "confidential-2"])
    assert "confidential" not in s3.list_objects_v2(Bucket=bucket, MaxKeys=1)["NextContinuationToken"]


# --- encoding-type=url

ENCODED = ["a b", "a+b", "é", "100%", "<&>", "new\nline", "q?x=1", "😀/x"]


def test_url_encoding_is_percent_twenty_and_never_plus(raw, bucket):
    put_many(raw, bucket, ENCODED)
    for query in ("list-type=2&", "", "versions&"):
        page = xml(raw.request("GET", f"/{bucket}?{query}encoding-type=url").body)
        assert page.findtext("EncodingType") == "url"
        texts = [entry.text for entry in page.iter("Key")]
        assert [unquote_to_bytes(text).decode() for text in texts] == sorted(ENCODED, key=utf8)
        assert "a%20b" in texts and "a%2Bb" in texts and "%F0%9F%98%80/x" in texts


def test_url_encoding_covers_prefix_delimiter_and_markers(raw, bucket):
    put_many(raw, bucket, ["p 1/é ü/1", "p 1/é ü/2", "p 1/z"])
    query = f"prefix={encode('p 1/')}&delimiter={encode(' ü')}&max-keys=1&encoding-type=url"
    page = xml(raw.request("GET", f"/{bucket}?{query}&marker={encode('p 1/ ')}").body)
    assert page.findtext("Prefix") == "p%201/"
    assert page.findtext("Delimiter") == "%20%C3%BC"
    assert page.findtext("Marker") == "p%201/%20"
    assert [unquote_to_bytes(e.text).decode() for e in page.iterfind("Contents/Key")] == ["p 1/z"]
    page = xml(raw.request("GET", f"/{bucket}?list-type=2&{query}&start-after={encode('p 1/z')}").body)
    assert page.findtext("StartAfter") == "p%201/z"
    assert page.findtext("CommonPrefixes/Prefix") == "p%201/%C3%A9%20%C3%BC"


def test_without_url_encoding_keys_are_escaped_as_xml(raw, bucket):
    keys = ["<a>", "&amp;", '"q"', "'", "]]>", "é", "a b"]
    put_many(raw, bucket, keys)
    page = xml(raw.request("GET", f"/{bucket}?list-type=2").body)
    assert [entry.text for entry in page.iter("Key")] == sorted(keys, key=utf8)
    assert page.findtext("EncodingType") is None


def test_an_encoding_that_s3_does_not_have_is_an_invalid_argument(raw, bucket):
    for query in ("list-type=2&", "", "versions&", "uploads&"):
        for encoding in ("base64", ""):
            answer = raw.request("GET", f"/{bucket}?{query}encoding-type={encoding}")
            assert answer.refusal == (400, "InvalidArgument")


def test_an_empty_delimiter_or_prefix_is_none(raw, s3, bucket):
    put_many(raw, bucket, ["a/b", "c"])
    page = xml(raw.request("GET", f"/{bucket}?list-type=2&delimiter=&prefix=").body)
    assert [entry.text for entry in page.iter("Key")] == ["a/b", "c"]
    assert page.find("CommonPrefixes") is None


def test_an_unknown_query_parameter_is_ignored(raw, bucket):
    assert raw.request("GET", f"/{bucket}?list-type=2&utm_source=x").status == 200


# --- versions of a bucket that has none


def test_versions_of_an_unversioned_bucket_are_its_objects(s3, raw, bucket):
    put_many(raw, bucket, ["a", "b/1"], b"body")
    page = s3.list_object_versions(Bucket=bucket)
    assert "DeleteMarkers" not in page
    for entry, key in zip(page["Versions"], ["a", "b/1"], strict=True):
        assert (entry["Key"], entry["VersionId"], entry["IsLatest"]) == (key, "null", True)
        assert (entry["Size"], entry["ETag"], entry["StorageClass"]) == (4, etag(b"body"), "STANDARD")


def test_what_list_versions_gives_can_be_deleted(s3, raw, bucket):
    """What warp and clean-up tools do."""
    put_many(raw, bucket, ["a", "b/1", "c d"])
    versions = s3.list_object_versions(Bucket=bucket)["Versions"]
    objects = [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in versions]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert "Errors" not in answer and len(answer["Deleted"]) == 3
    assert keys_of(s3, bucket) == []


def test_listing_a_missing_bucket_is_no_such_bucket(s3):
    for call in (s3.list_objects, s3.list_objects_v2, s3.list_object_versions):
        with refused(404, "NoSuchBucket"):
            call(Bucket="t-never-made")
