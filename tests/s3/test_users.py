"""Users of the --users file: who they are, what their policies let them do, and the file read again on SIGHUP."""

import json
import signal
import zlib
from base64 import b64encode

import pytest
from check import body_of, keys_of, refused
from conftest import client_for
from daemon import SECRET_KEY, wait_until
from sigv4 import STREAMING, STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER, Signer
from wire import Raw, path_of

SECRETS = {name: f"secret-of-{name}-0123456789" for name in ("alice", "bob", "carol", "dave", "erin", "frank")}
RESOURCES = ["arn:aws:s3:::shared", "arn:aws:s3:::shared/*"]


def policy(*statements: dict) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(actions, resources="*", **more) -> dict:
    return {"Effect": "Allow", "Action": actions, "Resource": resources} | more


def deny(actions, resources="*", **more) -> dict:
    return {"Effect": "Deny", "Action": actions, "Resource": resources} | more


def toml(value) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {json.dumps(text)}" for key, text in value.items()) + " }"
    return json.dumps(value)


def entry(name: str, *policies: str, **more) -> str:
    lines = ["[[user]]", f'name = "{name}"', f'access_key = "AK{name}"', f'secret_key = "{SECRETS[name]}"']
    lines += [f"{key} = {toml(value)}" for key, value in more.items()]
    quoted = [f"'''\n{text}'''" for text in policies]
    return "\n".join([*lines, f"policies = [{', '.join(quoted)}]", ""])


# What each may do is said in the test that is about it.
USERS = "\n".join(
    [
        entry(
            "alice",
            policy(
                allow("s3:ListBucket", "arn:aws:s3:::shared", Condition={"StringLike": {"s3:prefix": "alice/*"}}),
                allow(["s3:*Object*", "s3:*Multipart*"], "arn:aws:s3:::shared/${aws:username}/*"),
                deny("s3:DeleteObject", "arn:aws:s3:::shared/alice/kept/*"),
            ),
        ),
        entry("bob", policy(allow(["s3:GetObject", "s3:ListBucket"], RESOURCES)), policy(allow("s3:ListAllMyBuckets"))),
        entry("carol", policy(allow("s3:*")), disabled=True),
        entry("dave"),
        entry("erin", policy(allow("s3:*")), display_name="Erin E.", tags={"team": "red"}),
        entry("frank", policy(allow("s3:*Object", "arn:aws:s3:::shared/*"))),
    ]
)


@pytest.fixture
def users_file(tmp_path):
    path = tmp_path / "users.toml"
    path.write_text(USERS)
    return path


@pytest.fixture
def daemon(own_daemon, users_file):
    return own_daemon("--cores", "2", "--users", str(users_file)).start()


@pytest.fixture
def root(daemon):
    client = client_for(daemon.endpoint)
    client.create_bucket(Bucket="shared")
    client.create_bucket(Bucket="other")
    for key in ("alice/1", "alice/kept/1", "bob/1"):
        client.put_object(Bucket="shared", Key=key, Body=key.encode())
    return client


def client_of(daemon, name: str, **config):
    return client_for(daemon.endpoint, f"AK{name}", SECRETS[name], **config)


def raw_of(daemon, name: str) -> Raw:
    return Raw(daemon.endpoint, Signer(f"AK{name}", SECRETS[name]))


def denied(call, **arguments) -> None:
    with refused(403, "AccessDenied"):
        call(**arguments)


def test_a_user_does_what_a_policy_allows_and_nothing_else(daemon, root):
    alice = client_of(daemon, "alice")
    alice.put_object(Bucket="shared", Key="alice/2", Body=b"two")
    assert body_of(alice, "shared", "alice/2") == b"two"
    alice.head_object(Bucket="shared", Key="alice/1")
    alice.copy_object(Bucket="shared", Key="alice/3", CopySource="shared/alice/1")
    assert keys_of(alice, "shared", Prefix="alice/") == ["alice/1", "alice/2", "alice/3", "alice/kept/1"]
    alice.delete_object(Bucket="shared", Key="alice/2")
    upload = alice.create_multipart_upload(Bucket="shared", Key="alice/m")["UploadId"]
    named = {"Bucket": "shared", "Key": "alice/m", "UploadId": upload}
    part = alice.upload_part(**named, PartNumber=1, Body=b"part")
    alice.upload_part_copy(**named, PartNumber=2, CopySource="shared/alice/1")
    assert len(alice.list_parts(**named)["Parts"]) == 2
    alice.complete_multipart_upload(**named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    assert body_of(root, "shared", "alice/m") == b"part"

    before = keys_of(root, "shared")
    denied(alice.put_object, Bucket="shared", Key="bob/2", Body=b"x")
    denied(alice.put_object, Bucket="other", Key="alice/1", Body=b"x")
    denied(alice.get_object, Bucket="shared", Key="bob/1")
    denied(alice.delete_object, Bucket="shared", Key="bob/1")
    denied(alice.delete_object, Bucket="shared", Key="alice/kept/1")
    denied(alice.list_objects_v2, Bucket="shared")
    denied(alice.list_objects_v2, Bucket="shared", Prefix="bob/")
    denied(alice.create_multipart_upload, Bucket="shared", Key="bob/m")
    denied(alice.list_multipart_uploads, Bucket="shared")
    denied(alice.list_buckets)
    denied(alice.create_bucket, Bucket="alices")
    denied(alice.delete_bucket, Bucket="other")
    denied(alice.get_bucket_location, Bucket="shared")
    denied(alice.get_bucket_acl, Bucket="shared")
    denied(alice.get_bucket_versioning, Bucket="shared")
    denied(alice.get_object_attributes, Bucket="shared", Key="bob/1", ObjectAttributes=["ETag"])
    denied(alice.put_bucket_policy, Bucket="shared", Policy="{}")
    denied(alice.delete_bucket_policy, Bucket="shared")
    assert keys_of(root, "shared") == before


@pytest.mark.parametrize("source", ["shared/bob/1", "/shared/bob/1", "other/alice/1", "shared/bob/%2e%2e/alice/1"])
def test_a_copy_needs_the_right_to_read_its_source(daemon, root, source):
    root.put_object(Bucket="other", Key="alice/1", Body=b"x")
    alice = client_of(daemon, "alice")
    upload = alice.create_multipart_upload(Bucket="shared", Key="alice/m")["UploadId"]
    part = {"Bucket": "shared", "Key": "alice/m", "UploadId": upload, "PartNumber": 1}
    for call in (
        lambda: alice.copy_object(Bucket="shared", Key="alice/c", CopySource=source),
        lambda: alice.upload_part_copy(**part, CopySource=source),
    ):
        denied(call)
    alice.list_parts(Bucket="shared", Key="alice/m", UploadId=upload)
    assert "alice/c" not in keys_of(root, "shared")


def test_each_key_of_a_delete_is_allowed_for_itself(daemon, root):
    alice = client_of(daemon, "alice")
    keys = ["alice/1", "alice/kept/1", "bob/1", "alice/absent"]
    answer = alice.delete_objects(Bucket="shared", Delete={"Objects": [{"Key": key} for key in keys]})
    assert sorted(gone["Key"] for gone in answer["Deleted"]) == ["alice/1", "alice/absent"]
    assert {wrong["Key"]: wrong["Code"] for wrong in answer["Errors"]} == {
        "alice/kept/1": "AccessDenied",
        "bob/1": "AccessDenied",
    }
    assert keys_of(root, "shared") == ["alice/kept/1", "bob/1"]


def test_what_is_there_is_told_only_to_who_may_list(daemon, root):
    """Neither a missing key nor a condition says more than that access is denied."""
    alice, bob, frank = (client_of(daemon, name) for name in ("alice", "bob", "frank"))
    with refused(404, "NoSuchKey"):
        bob.get_object(Bucket="shared", Key="absent")
    # Alice may list what begins with her name.
    with refused(404, "NoSuchKey"):
        alice.get_object(Bucket="shared", Key="alice/absent")
    assert body_of(frank, "shared", "bob/1") == b"bob/1"
    denied(frank.get_object, Bucket="shared", Key="alice/absent")
    denied(frank.put_object, Bucket="shared", Key="absent", Body=b"x", IfMatch='"0"')
    denied(frank.copy_object, Bucket="shared", Key="new", CopySource="shared/absent")
    denied(alice.get_object, Bucket="shared", Key="bob/1", IfNoneMatch="*")
    denied(alice.get_object, Bucket="shared", Key="bob/1", IfModifiedSince="Wed, 01 Jan 2020 00:00:00 GMT")
    assert raw_of(daemon, "frank").request("HEAD", path_of("shared", "alice/absent")).status == 403
    with refused(404, "NoSuchBucket"):
        alice.list_objects_v2(Bucket="nowhere", Prefix="alice/")


def test_a_user_without_a_policy_may_do_nothing(daemon, root):
    dave = client_of(daemon, "dave")
    denied(dave.list_buckets)
    denied(dave.get_object, Bucket="shared", Key="bob/1")
    assert raw_of(daemon, "dave").request("HEAD", path_of("shared")).status == 403


def test_everything_is_not_more_than_s3_has(daemon, root):
    erin = client_of(daemon, "erin")
    erin.create_bucket(Bucket="erins")
    erin.put_object(Bucket="erins", Key="k", Body=b"x")
    assert [bucket["Name"] for bucket in erin.list_buckets()["Buckets"]] == ["erins", "other", "shared"]
    erin.delete_object(Bucket="erins", Key="k")
    erin.delete_bucket(Bucket="erins")


def test_a_disabled_user_is_nobody(daemon, root):
    carol = client_of(daemon, "carol")
    with refused(403, "InvalidAccessKeyId"):
        carol.list_buckets()
    wrong = client_for(daemon.endpoint, "AKalice", SECRETS["bob"])
    with refused(403, "SignatureDoesNotMatch"):
        wrong.list_objects_v2(Bucket="shared", Prefix="alice/")


def test_a_presigned_url_may_what_its_user_may(daemon, root):
    raw = Raw(daemon.endpoint, None)
    for version in ("s3v4", "s3"):
        alice = client_of(daemon, "alice", signature_version=version)

        def get(method, key, alice=alice):
            url = alice.generate_presigned_url(method, {"Bucket": "shared", "Key": key}, ExpiresIn=60)
            return url.removeprefix(daemon.endpoint)

        length = {"content-length": "3"}
        assert raw.send("GET", get("get_object", "alice/1"), {}).body == b"alice/1"
        assert raw.send("GET", get("get_object", "bob/1"), {}).status == 403
        assert raw.send("PUT", get("put_object", f"alice/{version}"), length, b"new").status == 200
        assert raw.send("PUT", get("put_object", "bob/9"), length, b"new").status == 403
        # The same URL for another method is another request.
        assert raw.send("DELETE", get("get_object", "alice/1"), {}).status == 403
    assert keys_of(root, "shared", Prefix="bob/") == ["bob/1"]


@pytest.mark.parametrize("payload", [STREAMING, STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER])
def test_bodies_in_chunks_are_of_who_signed_them(daemon, root, payload):
    alice = raw_of(daemon, "alice")
    body = bytes(range(256)) * 512
    chunks = [body[:65536], body[65536:]]
    how = {"payload": payload}
    if payload != STREAMING:
        how["trailer"] = {"x-amz-checksum-crc32": b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()}
    assert alice.stream(path_of("shared", "alice/c"), chunks, **how).status == 200
    assert body_of(root, "shared", "alice/c") == body
    answer = alice.stream(path_of("shared", "bob/c"), chunks, **how)
    assert answer.refusal == (403, "AccessDenied")
    # Alice's key, and another's secret.
    forged = Raw(daemon.endpoint, Signer("AKalice", SECRETS["erin"]))
    assert forged.stream(path_of("shared", "alice/d"), chunks, **how).status == 403
    assert keys_of(root, "shared", Prefix="alice/") == ["alice/1", "alice/c", "alice/kept/1"]


def reload(daemon, users_file, text: str, expected: str) -> None:
    before = len(daemon.log)
    users_file.write_text(text)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: expected in daemon.log[before:], 10, f"{expected!r} in the log")


def test_the_file_is_read_again_on_sighup(daemon, root, users_file):
    bob, carol = client_of(daemon, "bob"), client_of(daemon, "carol")
    body_of(bob, "shared", "bob/1")
    changed = USERS.replace("disabled = true", "disabled = false").replace("AKbob", "AKbobby")
    reload(daemon, users_file, changed, "was read again: 6 users")
    # Every core knows: requests go to either.
    for _ in range(8):
        carol = client_of(daemon, "carol")
        assert len(carol.list_buckets()["Buckets"]) == 2
        with refused(403, "InvalidAccessKeyId"):
            client_of(daemon, "bob").get_object(Bucket="shared", Key="bob/1")
    bobby = client_for(daemon.endpoint, "AKbobby", SECRETS["bob"])
    assert body_of(bobby, "shared", "bob/1") == b"bob/1"


@pytest.mark.parametrize(
    "broken, told",
    [
        (lambda text: text.replace('"AKbob"', '"AKalice"'), "access_key is that of another user"),
        (lambda text: text + "\n[[user]\n", "line "),
        (lambda text: text.replace("s3:GetObject", "s3:GetNothing"), "Policy has invalid action: s3:GetNothing"),
        (lambda text: text.replace("secret_key = ", "secret_kee = "), "unknown field"),
        (lambda text: text.replace(f'"{SECRETS["alice"]}"', SECRETS["alice"]), "line 4"),
    ],
)
def test_a_bad_file_changes_nothing_and_says_why(daemon, root, users_file, broken, told):
    reload(daemon, users_file, broken(USERS), "the users stay as they were: ")
    line = next(line for line in daemon.log.splitlines() if "stay as they were" in line)
    assert told in line and "line " in line and str(users_file) in line
    assert body_of(client_of(daemon, "bob"), "shared", "bob/1") == b"bob/1"
    reload(daemon, users_file, USERS, "was read again: 6 users")
    assert not any(secret in daemon.log for secret in [*SECRETS.values(), SECRET_KEY])


def test_a_file_that_is_gone_changes_nothing(daemon, root, users_file):
    users_file.unlink()
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the users stay as they were" in daemon.log, 10, "a warning")
    assert body_of(client_of(daemon, "bob"), "shared", "bob/1") == b"bob/1"


def test_a_start_with_a_bad_file_is_refused(own_daemon, users_file):
    users_file.write_text(USERS.replace("s3:ListAllMyBuckets", "s3:Everything"))
    daemon = own_daemon("--users", str(users_file))
    daemon.spawn()
    assert daemon.process.wait(20) == 2
    assert f"{users_file}, line " in daemon.log and "s3:Everything" in daemon.log


def test_addresses_and_agents_are_those_of_the_connection(own_daemon, users_file):
    here = policy(allow("s3:*", Condition={"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}))
    elsewhere = policy(allow("s3:*", Condition={"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}))
    tagged = policy(allow("s3:*", Condition={"StringEquals": {"aws:PrincipalTag/team": "red"}}))
    v4 = policy(allow("s3:*", Condition={"StringEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256"}}))
    young = policy(allow("s3:*", Condition={"NumericLessThan": {"s3:signatureAge": 600_000}}))
    users_file.write_text(
        "\n".join(
            [
                entry("alice", here),
                entry("bob", elsewhere),
                entry("carol", tagged, tags={"team": "red"}),
                entry("dave", v4),
                entry("erin", young),
            ]
        )
    )
    daemon = own_daemon("--users", str(users_file)).start()
    for name in ("alice", "carol", "dave", "erin"):
        client_of(daemon, name).list_buckets()
    denied(client_of(daemon, "bob").list_buckets)
    denied(client_of(daemon, "dave", signature_version="s3").list_buckets)
    # A header says nothing about where a request comes from.
    answer = raw_of(daemon, "bob").request("GET", "/", headers={"X-Forwarded-For": "203.0.113.5"})
    assert answer.status == 403
