"""XML bodies that are malformed, deep, huge or clever: refused, nothing changed, the daemon serves on."""

import hashlib
from base64 import b64encode

import pytest
from check import exists, new_upload, put_part
from sigv4 import encode
from wire import Closed, Raw, head, path_of

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]>'
)
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY k SYSTEM "file:///etc/passwd">]>'
OBJECT = "<Object><Key>victim</Key></Object>"

DELETES = {
    "not closed": f"<Delete>{OBJECT}",
    "crossed": "<Delete><Object><Key>victim</Object></Key></Delete>",
    "two roots": f"<Delete>{OBJECT}</Delete><Delete>{OBJECT}</Delete>",
    "text after": f"<Delete>{OBJECT}</Delete>more",
    "text before": f"more<Delete>{OBJECT}</Delete>",
    "unknown entity": f"<Delete>{OBJECT}<Object><Key>&nope;</Key></Object></Delete>",
    "doctype": f"<!DOCTYPE Delete><Delete>{OBJECT}</Delete>",
    "internal entities": f"{BOMB}<Delete>{OBJECT}<Object><Key>&d;</Key></Object></Delete>",
    "external entity": f"{EXTERNAL}<Delete>{OBJECT}<Object><Key>&k;</Key></Object></Delete>",
    "deep": f"<Delete>{OBJECT}" + "<a>" * 1000 + "</a>" * 1000 + "</Delete>",
    "deep and not closed": "<Delete>" + "<a>" * 100_000,
    "bad reference": f"<Delete>{OBJECT}<Object><Key>&#xFFFFFFFF;</Key></Object></Delete>",
    "reference to a surrogate": f"<Delete>{OBJECT}<Object><Key>&#xD800;</Key></Object></Delete>",
    "reference to nul": f"<Delete>{OBJECT}<Object><Key>&#0;</Key></Object></Delete>",
    "unquoted attribute": f"<Delete a=b>{OBJECT}</Delete>",
    "bare ampersand": f"<Delete>{OBJECT}<Object><Key>a & b</Key></Object></Delete>",
    "bad name": f"<Delete>{OBJECT}<1/></Delete>",
    "two keys": "<Delete><Object><Key>victim</Key><Key>other</Key></Object></Delete>",
    "json": '{"Delete": ["victim"]}',
    "spaces": "   ",
    "quiet is no boolean": f"<Delete><Quiet>perhaps</Quiet>{OBJECT}</Delete>",
}


def delete(raw: Raw, bucket: str, body: bytes):
    headers = {"content-md5": b64encode(hashlib.md5(body).digest()).decode()}
    return raw.request("POST", f"/{bucket}?delete", body, headers)


@pytest.fixture
def victim(s3, bucket) -> str:
    s3.put_object(Bucket=bucket, Key="victim", Body=b"")
    return bucket


@pytest.mark.parametrize("case", DELETES)
def test_a_delete_document_that_is_not_well_formed_is_malformed(raw, s3, victim, case):
    assert delete(raw, victim, DELETES[case].encode()).refusal == (400, "MalformedXML")
    assert exists(s3, victim, "victim")


def test_bytes_that_are_not_utf8_are_malformed(raw, s3, victim):
    for body in (
        b"<Delete><Object><Key>victim</Key></Object><Object><Key>\xff</Key></Object></Delete>",
        b"\xfe\xff\x00<",
    ):
        assert delete(raw, victim, body).refusal == (400, "MalformedXML")
    assert exists(s3, victim, "victim")


def test_a_body_larger_than_any_document_is_refused_before_it_is_read(raw, s3, victim):
    """What is declared is far beyond 1,000 keys, however they are escaped: nobody waits for the rest."""
    target = f"/{victim}?delete"
    given = {"content-length": str(1 << 30), "content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
    headers = raw.signed("POST", target, headers=given, payload="UNSIGNED-PAYLOAD")
    with raw.connect() as wire:
        wire.send_or_closed(head("POST", target, headers) + b"<Delete>" + b" " * 100_000)
        answer = wire.response("POST")
        assert answer.status == 400 and answer.code in ("MalformedXML", "EntityTooLarge", "MaxMessageLengthExceeded")
    assert exists(s3, victim, "victim")


def test_a_chunked_body_larger_than_any_document_is_refused(raw, s3, victim):
    target = f"/{victim}?delete"
    headers = raw.signer.header(
        "POST", target, {"host": raw.host, "transfer-encoding": "chunked"}, payload="UNSIGNED-PAYLOAD"
    )
    with raw.connect() as wire:
        wire.send(head("POST", target, headers))
        for _ in range(300):
            wire.send_or_closed(b"10000\r\n" + b" " * 65_536 + b"\r\n")
        try:
            assert wire.response("POST").status in (400, 411)
        except Closed:
            pass  # It had stopped reading, and our bytes reset the connection before the answer was read.
    assert exists(s3, victim, "victim")


COMPLETES = {
    "not closed": "<CompleteMultipartUpload><Part>",
    "no number": "<CompleteMultipartUpload><Part><ETag>{etag}</ETag></Part></CompleteMultipartUpload>",
    "no etag": "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>",
    "number is text": "<CompleteMultipartUpload><Part><PartNumber>one</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>",
    "other root": "<Complete><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></Complete>",
    "doctype": "<!DOCTYPE x><CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>",
    "entities": BOMB
    + "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&d;</ETag></Part></CompleteMultipartUpload>",
    "10,001 parts": "<CompleteMultipartUpload>"
    + "".join(f"<Part><PartNumber>{i}</PartNumber><ETag>x</ETag></Part>" for i in range(1, 10_002))
    + "</CompleteMultipartUpload>",
}


@pytest.mark.parametrize("case", COMPLETES)
def test_a_completion_that_is_not_well_formed_completes_nothing(raw, s3, bucket, case):
    upload = new_upload(s3, bucket, "k")
    part = put_part(s3, bucket, "k", upload, 1, b"body")
    body = COMPLETES[case].replace("{etag}", part["ETag"]).encode()
    answer = raw.request("POST", f"{path_of(bucket, 'k')}?uploadId={encode(upload)}", body)
    assert answer.status == 400 and answer.code in ("MalformedXML", "InvalidPart", "InvalidArgument")
    assert not exists(s3, bucket, "k")
    assert len(s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"]) == 1


@pytest.mark.parametrize("number", ["0", "10001", "-1", "4294967297", "1e0"])
def test_a_completion_with_a_part_number_out_of_range_completes_nothing(raw, s3, bucket, number):
    upload = new_upload(s3, bucket, "k")
    part = put_part(s3, bucket, "k", upload, 1, b"body")
    body = f"<CompleteMultipartUpload><Part><PartNumber>{number}</PartNumber><ETag>{part['ETag']}</ETag></Part></CompleteMultipartUpload>"
    answer = raw.request("POST", f"{path_of(bucket, 'k')}?uploadId={encode(upload)}", body.encode())
    assert answer.status == 400 and answer.code in ("InvalidPart", "MalformedXML", "InvalidArgument")
    assert not exists(s3, bucket, "k")


def test_comments_cdata_and_attributes_are_harmless(raw, s3, victim):
    s3.put_object(Bucket=victim, Key="<other>", Body=b"")
    body = b'<?xml version="1.0"?><!-- hi --><Delete a="b"><Object><Key>victim</Key></Object><Object><Key><![CDATA[<other>]]></Key></Object></Delete>'
    answer = delete(raw, victim, body)
    # Refusing what no S3 client sends is as good as reading it right; acting on half of it is not.
    if answer.status == 200:
        assert not exists(s3, victim, "victim") and not exists(s3, victim, "<other>")
    else:
        assert answer.refusal == (400, "MalformedXML")
        assert exists(s3, victim, "victim") and exists(s3, victim, "<other>")
