"""`weft inspect`: segments, records and keys in words, and what is not there."""

import pytest
from check import PART, pattern, upload_parts
from conftest import client_for
from daemon import Daemon
from test_damage import inspected, run


@pytest.fixture(scope="module")
def stopped():
    daemon = Daemon("--cores", "1", capacity="256MiB").start()
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="a/key", Body=pattern(100))
    s3.put_object(Bucket="bucket", Key="a/key", Body=pattern(200))
    s3.delete_object(Bucket="bucket", Key="a/key")
    upload_parts(s3, "bucket", "parts", [pattern(PART), pattern(10)])
    daemon.stop()
    yield daemon
    daemon.discard()


def test_a_key_has_every_record_in_order(stopped):
    shown = inspected(stopped.data, "--key", "bucket/a/key")
    changes = [change for record in shown["records"] for change in record["changes"]]
    assert [(c["operation"], c["bucket"], c["key"], (c.get("value") or {}).get("size")) for c in changes] == [
        ("put", "bucket", "a/key", 100),
        ("put", "bucket", "a/key", 200),
        ("delete", "bucket", "a/key", None),
    ]
    assert shown["current"] == shown["records"][-1]["sequence"]


def test_bytes_lie_where_the_extents_say(stopped):
    completed = inspected(stopped.data, "--key", "bucket/parts")["records"][-1]
    (put,) = [change for change in completed["changes"] if change["operation"] == "put"]
    body = b""
    for extent in put["value"]["extents"]:
        content = (stopped.data / "segments" / f"{extent['segment']}.seg").read_bytes()
        if extent["layout"] == "record":
            body += content[extent["offset"] :][: extent["length"]]
            continue
        left = extent["length"]
        for block in range(extent["blocks"]):
            at = extent["offset"] + block * 65536 + 16
            body += content[at : at + min(left, 65520)]
            left -= min(left, 65520)
    assert body == pattern(PART) + pattern(10)


def test_a_record_is_found_by_any_of_its_bytes(stopped):
    record = inspected(stopped.data, "--key", "bucket/a/key")["records"][0]
    for offset in (record["offset"], record["offset"] + record["length"] - 1):
        place = f"{record['segment']}:{offset}"
        assert inspected(stopped.data, "--record", place)["offset"] == record["offset"]


def test_the_texts_say_the_same(stopped):
    segment = inspected(stopped.data, "--key", "bucket/a/key")["records"][0]["segment"]
    assert f"segment {segment} log" in run("inspect", stopped.data).stdout
    in_segment = run("inspect", stopped.data, "--segment", segment).stdout
    assert "put bucket/a/key" in in_segment and "delete bucket/a/key" in in_segment and ", seal" in in_segment
    assert "200 bytes in record at" in run("inspect", stopped.data, "--key", "bucket/a/key").stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--segment", "ffff"], "there is no segment 0000ffff"),
        (["--record", "0:4096"], "there is no record at 4096 of segment 00000000"),
        (["--key", "other/key"], "there is no bucket other"),
        (["--key", "bucket/never"], "there is no record of bucket/never"),
        (["--segment", "x"], "names nothing to inspect"),
        (["--segment", "0", "--key", "a/b"], "cannot be used with"),
    ],
)
def test_what_is_not_there_is_an_error(stopped, flags, said):
    answer = run("inspect", stopped.data, *flags)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert said in answer.stderr
