"""Policies of buckets, what they let in and keep out, blocks of public access, and whom buckets belong to."""

import json
import zlib
from base64 import b64encode

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from check import body_of, keys_of, refused
from conftest import client_for
from sigv4 import STREAMING, STREAMING_UNSIGNED_TRAILER, Signer
from test_users import SECRETS, allow, denied, entry, policy
from wire import Raw, path_of

USERS = "\n".join(
    [
        # Accounts of their own.
        "\n".join(
            f'[[user]]\nname = "{name}"\nid = "{name}-id"\ndisplay_name = "{name.title()}"\n'
            f'access_key = "AK{name}"\nsecret_key = "{SECRETS[name]}"\n'
            for name in ("alice", "bob")
        ),
        # Carol is of Bob's account, Dave and Erin of root's.
        entry("carol", policy(allow("s3:*")), id="bob-id"),
        entry("dave", policy(allow("s3:ListAllMyBuckets"))),
        entry("erin", policy(allow("s3:*"))),
    ]
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    from daemon import Daemon

    path = tmp_path_factory.mktemp("users") / "users.toml"
    path.write_text(USERS)
    daemon = Daemon("--cores", "2", "--users", str(path)).start()
    yield daemon
    daemon.assert_alive()
    daemon.discard()


@pytest.fixture(scope="module")
def root(daemon):
    return client_for(daemon.endpoint)


@pytest.fixture(scope="module")
def users(daemon):
    return {name: client_for(daemon.endpoint, f"AK{name}", secret) for name, secret in SECRETS.items()}


@pytest.fixture(scope="module")
def nobody(daemon):
    config = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=daemon.endpoint, region_name="us-east-1", config=config)


@pytest.fixture
def alices(users, request):
    """A bucket of Alice's, with `k` in it."""
    name = f"alices-{abs(hash(request.node.name)):x}"
    users["alice"].create_bucket(Bucket=name)
    users["alice"].put_object(Bucket=name, Key="k", Body=b"hers")
    return name


def resources(bucket: str) -> list[str]:
    return [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]


def rule(effect: str, principal, actions, bucket: str, **more) -> dict:
    return {"Effect": effect, "Principal": principal, "Action": actions, "Resource": resources(bucket)} | more


def put(client, bucket: str, *rules: dict, **more) -> None:
    client.put_bucket_policy(Bucket=bucket, Policy=policy(*rules), **more)


def test_a_bucket_belongs_to_whoever_made_it(root, users, alices):
    alice, bob = users["alice"], users["bob"]
    listed = alice.list_buckets()
    assert listed["Owner"] == {"ID": "alice-id", "DisplayName": "Alice"}
    assert alices in [bucket["Name"] for bucket in listed["Buckets"]]
    assert bob.list_buckets()["Buckets"] == [] and users["dave"].list_buckets()["Buckets"] == []
    assert alices in [bucket["Name"] for bucket in root.list_buckets()["Buckets"]]
    assert alice.list_objects(Bucket=alices)["Contents"][0]["Owner"] == {"ID": "alice-id", "DisplayName": "Alice"}
    assert alice.get_bucket_acl(Bucket=alices)["Owner"]["ID"] == "alice-id"
    for other in (bob, users["carol"], users["dave"], users["erin"]):
        denied(other.get_object, Bucket=alices, Key="k")
        denied(other.put_object, Bucket=alices, Key="k", Body=b"x")
        denied(other.list_objects_v2, Bucket=alices)
        denied(other.delete_bucket, Bucket=alices)
        denied(other.get_bucket_policy, Bucket=alices)
        with refused(409, "BucketAlreadyExists"):
            users["bob"].create_bucket(Bucket=alices)
    with refused(409, "BucketAlreadyOwnedByYou"):
        alice.create_bucket(Bucket=alices)
    alice.head_bucket(Bucket=alices, ExpectedBucketOwner="alice-id")
    with refused(403, "403"):
        alice.head_bucket(Bucket=alices, ExpectedBucketOwner="bob-id")
    assert body_of(root, alices, "k") == b"hers"


def test_users_of_an_account_share_its_buckets_as_their_policies_say(users, request):
    users["bob"].create_bucket(Bucket="bobs-shared")
    users["carol"].put_object(Bucket="bobs-shared", Key="k", Body=b"ours")
    assert body_of(users["bob"], "bobs-shared", "k") == b"ours"
    assert [bucket["Name"] for bucket in users["carol"].list_buckets()["Buckets"]] == ["bobs-shared"]
    put(users["bob"], "bobs-shared", rule("Deny", {"AWS": "arn:aws:iam::bob-id:user/carol"}, "s3:PutObject", "bobs-shared"))
    denied(users["carol"].put_object, Bucket="bobs-shared", Key="k2", Body=b"x")
    users["carol"].delete_object(Bucket="bobs-shared", Key="k")
    users["bob"].delete_bucket(Bucket="bobs-shared")


def test_a_policy_is_given_back_as_it_came_and_removed(users, alices):
    alice = users["alice"]
    with refused(404, "NoSuchBucketPolicy"):
        alice.get_bucket_policy(Bucket=alices)
    text = policy(rule("Allow", "*", "s3:GetObject", alices)) + "  \n"
    alice.put_bucket_policy(Bucket=alices, Policy=text)
    assert alice.get_bucket_policy(Bucket=alices)["Policy"] == text
    alice.delete_bucket_policy(Bucket=alices)
    alice.delete_bucket_policy(Bucket=alices)
    with refused(404, "NoSuchBucketPolicy"):
        alice.get_bucket_policy(Bucket=alices)
    denied(users["bob"].get_object, Bucket=alices, Key="k")


def test_a_policy_lets_others_in_for_what_it_says(users, nobody, alices):
    alice, bob = users["alice"], users["bob"]
    put(alice, alices, rule("Allow", {"AWS": "arn:aws:iam::bob-id:root"}, ["s3:GetObject", "s3:ListBucket"], alices))
    # Every core obeys it at once.
    for _ in range(8):
        assert body_of(client_for(bob.meta.endpoint_url, "AKbob", SECRETS["bob"]), alices, "k") == b"hers"
    assert keys_of(bob, alices) == ["k"]
    # Carol's own policy lets her take what her account is given; Erin's account is given nothing.
    assert body_of(users["carol"], alices, "k") == b"hers"
    denied(users["erin"].get_object, Bucket=alices, Key="k")
    denied(nobody.get_object, Bucket=alices, Key="k")
    denied(bob.put_object, Bucket=alices, Key="k", Body=b"x")
    denied(bob.delete_object, Bucket=alices, Key="k")
    denied(bob.delete_bucket_policy, Bucket=alices)
    assert body_of(alice, alices, "k") == b"hers"


def test_anyone_may_read_where_a_policy_says_so(users, nobody, daemon, alices):
    alice = users["alice"]
    denied(nobody.list_buckets)
    denied(nobody.create_bucket, Bucket="nobodys")
    denied(nobody.get_object, Bucket=alices, Key="k")
    put(alice, alices, rule("Allow", "*", "s3:GetObject", alices, Resource=f"arn:aws:s3:::{alices}/*"))
    assert body_of(nobody, alices, "k") == b"hers"
    nobody.head_object(Bucket=alices, Key="k")
    assert body_of(users["erin"], alices, "k") == b"hers"
    denied(nobody.list_objects_v2, Bucket=alices)
    denied(nobody.put_object, Bucket=alices, Key="k", Body=b"x")
    # Neither a missing key nor a condition tells who may not list what is there.
    denied(nobody.get_object, Bucket=alices, Key="absent")
    with refused(400, "InvalidRequest"):
        nobody.get_object(Bucket=alices, Key="k", ResponseContentType="text/html")
    answer = alice.delete_objects(Bucket=alices, Delete={"Objects": [{"Key": "k"}]})
    assert answer["Deleted"][0]["Key"] == "k"


@pytest.mark.parametrize("payload", ["none", STREAMING, STREAMING_UNSIGNED_TRAILER])
def test_uploads_that_nobody_signs_need_a_policy(users, daemon, alices, payload):
    raw = Raw(daemon.endpoint, Signer("AKnobody", "x" * 20))
    body = b"anyone's" * 9000
    target = path_of(alices, "anon")

    def upload(**more):
        if payload == "none":
            return raw.send("PUT", target, {"content-length": str(len(body))} | more, body)
        how = {"payload": payload}
        if payload != STREAMING:
            how["trailer"] = {"x-amz-checksum-crc32": b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()}
        headers, framed = raw.signer.streaming("PUT", target, {"host": raw.host}, [body], **how)
        del headers["authorization"]
        return raw.send("PUT", target, headers | more, framed)

    assert upload().refusal == (403, "AccessDenied")
    put(users["alice"], alices, rule("Allow", "*", "s3:PutObject", alices, Resource=f"arn:aws:s3:::{alices}/*"))
    answer = upload()
    if payload == STREAMING:
        # Chunks that somebody would have to have signed.
        assert answer.refusal == (403, "AccessDenied")
        assert "anon" not in keys_of(users["alice"], alices)
    else:
        assert answer.status == 200
        assert body_of(users["alice"], alices, "anon") == body


def test_a_deny_counts_for_everyone(root, users, alices):
    """The bucket's owner and root too, but for the policy itself."""
    put(users["alice"], alices, rule("Deny", "*", ["s3:GetObject", "s3:*BucketPolicy"], alices))
    for client in (users["alice"], root):
        denied(client.get_object, Bucket=alices, Key="k")
        denied(client.copy_object, Bucket=alices, Key="k2", CopySource=f"{alices}/k")
        client.get_bucket_policy(Bucket=alices)
    users["alice"].put_object(Bucket=alices, Key="k3", Body=b"x")
    users["alice"].delete_bucket_policy(Bucket=alices)
    assert body_of(users["alice"], alices, "k") == b"hers"


def test_an_owner_may_lock_out_all_but_root(root, users, alices):
    rules = rule("Deny", "*", "s3:*BucketPolicy", alices)
    put(users["alice"], alices, rules, ConfirmRemoveSelfBucketAccess=True)
    denied(users["alice"].get_bucket_policy, Bucket=alices)
    denied(users["alice"].delete_bucket_policy, Bucket=alices)
    root.delete_bucket_policy(Bucket=alices)
    users["alice"].put_object(Bucket=alices, Key="k", Body=b"x")


def test_a_missing_key_is_told_to_who_may_list_it(users, nobody, alices):
    condition = {"StringLike": {"s3:prefix": "public/*"}}
    put(users["alice"], alices, rule("Allow", "*", "s3:ListBucket", alices, Condition=condition),
        rule("Allow", "*", "s3:GetObject", alices, Resource=f"arn:aws:s3:::{alices}/*"))  # fmt: skip
    with refused(404, "NoSuchKey"):
        nobody.get_object(Bucket=alices, Key="public/absent")
    denied(nobody.get_object, Bucket=alices, Key="private/absent")
    denied(nobody.get_object, Bucket=alices, Key="private/absent", IfMatch="x")


def test_conditions_see_the_request(users, nobody, alices):
    alice, bob = users["alice"], users["bob"]
    everyone = {"AWS": "*"}
    for condition, works, fails in (
        ({"StringEquals": {"s3:prefix": "a/"}}, {"Prefix": "a/"}, {"Prefix": "b/"}),
        ({"StringLike": {"s3:prefix": ["a/*", ""]}, "StringEquals": {"s3:delimiter": "/"}},
         {"Prefix": "a/b", "Delimiter": "/"}, {"Prefix": "a/b"}),
        ({"NumericLessThanEquals": {"s3:max-keys": "10"}}, {"MaxKeys": 10}, {"MaxKeys": 11}),
        ({"Null": {"s3:prefix": "true"}}, {}, {"Prefix": "a"}),
    ):  # fmt: skip
        put(alice, alices, rule("Allow", everyone, "s3:ListBucket", alices, Condition=condition))
        for client in (bob, nobody):
            client.list_objects_v2(Bucket=alices, **works)
            denied(client.list_objects_v2, Bucket=alices, **fails)
    object_only = {"Resource": f"arn:aws:s3:::{alices}/*"}
    source = {"StringEquals": {"s3:x-amz-copy-source": f"{alices}/k"}}
    put(alice, alices, rule("Allow", everyone, "s3:GetObject", alices, **object_only),
        rule("Allow", everyone, "s3:PutObject", alices, Condition=source, **object_only))  # fmt: skip
    bob.copy_object(Bucket=alices, Key="copy", CopySource=f"{alices}/k")
    denied(bob.put_object, Bucket=alices, Key="copy", Body=b"x")
    denied(bob.copy_object, Bucket=alices, Key="copy2", CopySource=f"{alices}/copy")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"Version": "2012-10-17", "Statement": []}',
        policy(rule("Allow", "*", "s3:GetObject", "another-bucket")),
        policy(rule("Allow", "*", "s3:GetEverything", "BUCKET")),
        policy(rule("Allow", {"AWS": "arn:aws:iam::x:user/*"}, "s3:GetObject", "BUCKET")),
        policy({"Effect": "Allow", "NotPrincipal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::BUCKET/*"}),
        policy(rule("Allow", "*", "s3:GetObject", "BUCKET", Condition={"StringIs": {"s3:prefix": "a"}})),
        policy(rule("Allow", "*", "s3:GetObject", "BUCKET", Extra=1)),
        policy(rule("Allow", "*", "s3:GetObject", "BUCKET")) + " " * 21_000,
        '{"Statement": ' + "[" * 5000,
    ],
    ids=lambda text: text[:24] + str(len(text)),
)
def test_what_is_no_policy_changes_nothing(users, daemon, alices, text):
    good = policy(rule("Allow", "*", "s3:GetObject", alices))
    users["alice"].put_bucket_policy(Bucket=alices, Policy=good)
    raw = Raw(daemon.endpoint, Signer("AKalice", SECRETS["alice"]))
    answer = raw.request("PUT", f"/{alices}?policy", text.replace("BUCKET", alices).encode())
    assert answer.refusal == (400, "MalformedPolicy")
    assert users["alice"].get_bucket_policy(Bucket=alices)["Policy"] == good


def block(client, bucket: str, **flags) -> None:
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    settings = {name: flags.get(name, False) for name in names}
    client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=settings)
    assert client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == settings


def test_public_access_is_blocked(users, nobody, alices):
    alice = users["alice"]
    with refused(404, "NoSuchPublicAccessBlockConfiguration"):
        alice.get_public_access_block(Bucket=alices)
    public = rule("Allow", "*", "s3:GetObject", alices)
    put(alice, alices, public)
    assert alice.get_bucket_policy_status(Bucket=alices)["PolicyStatus"] == {"IsPublic": True}
    block(alice, alices, RestrictPublicBuckets=True)
    denied(nobody.get_object, Bucket=alices, Key="k")
    denied(users["bob"].get_object, Bucket=alices, Key="k")
    assert body_of(alice, alices, "k") == b"hers"
    block(alice, alices, BlockPublicPolicy=True)
    assert body_of(nobody, alices, "k") == b"hers"
    denied(alice.put_bucket_policy, Bucket=alices, Policy=policy(public))
    put(alice, alices, rule("Allow", {"AWS": "bob-id"}, "s3:GetObject", alices))
    assert alice.get_bucket_policy_status(Bucket=alices)["PolicyStatus"] == {"IsPublic": False}
    denied(nobody.get_object, Bucket=alices, Key="k")
    alice.delete_public_access_block(Bucket=alices)
    put(alice, alices, public)
    assert body_of(nobody, alices, "k") == b"hers"


def test_ownership_is_kept(users, alices):
    alice = users["alice"]
    with refused(404, "OwnershipControlsNotFoundError"):
        alice.get_bucket_ownership_controls(Bucket=alices)
    for ownership in ("BucketOwnerPreferred", "ObjectWriter", "BucketOwnerEnforced"):
        rules = {"Rules": [{"ObjectOwnership": ownership}]}
        alice.put_bucket_ownership_controls(Bucket=alices, OwnershipControls=rules)
        assert alice.get_bucket_ownership_controls(Bucket=alices)["OwnershipControls"] == rules
    alice.delete_bucket_ownership_controls(Bucket=alices)
    with refused(404, "OwnershipControlsNotFoundError"):
        alice.get_bucket_ownership_controls(Bucket=alices)
    alice.create_bucket(Bucket=f"{alices}-2", ObjectOwnership="ObjectWriter")
    kept = alice.get_bucket_ownership_controls(Bucket=f"{alices}-2")["OwnershipControls"]
    assert kept["Rules"] == [{"ObjectOwnership": "ObjectWriter"}]


@pytest.mark.parametrize("setting", ["publicAccessBlock", "ownershipControls"])
def test_a_setting_that_cannot_be_read_changes_nothing(users, daemon, alices, setting):
    raw = Raw(daemon.endpoint, Signer("AKalice", SECRETS["alice"]))
    for body in (b"", b"<x/>", b"<!DOCTYPE x [<!ENTITY e 'e'>]><PublicAccessBlockConfiguration/>",
                 b"<PublicAccessBlockConfiguration><BlockPublicAcls>perhaps</BlockPublicAcls></PublicAccessBlockConfiguration>",
                 b"<OwnershipControls><Rule><ObjectOwnership>Everyone</ObjectOwnership></Rule></OwnershipControls>"):  # fmt: skip
        assert raw.request("PUT", f"/{alices}?{setting}", body).refusal == (400, "MalformedXML")
    assert raw.request("GET", f"/{alices}?{setting}").status == 404


def test_policies_outlive_kill_and_restart(own_daemon, tmp_path):
    path = tmp_path / "users.toml"
    path.write_text(USERS)
    daemon = own_daemon("--users", str(path)).start()
    alice = client_for(daemon.endpoint, "AKalice", SECRETS["alice"])
    alice.create_bucket(Bucket="kept")
    alice.put_object(Bucket="kept", Key="k", Body=b"hers")
    put(alice, "kept", rule("Deny", "*", "s3:GetObject", "kept"), rule("Allow", {"AWS": "bob-id"}, "s3:PutObject", "kept"))
    alice.create_bucket(Bucket="freed")
    put(alice, "freed", rule("Allow", "*", "s3:GetObject", "freed"))
    alice.delete_bucket_policy(Bucket="freed")
    daemon.kill()
    daemon.start()
    bob = client_for(daemon.endpoint, "AKbob", SECRETS["bob"])
    bob.put_object(Bucket="kept", Key="b", Body=b"his")
    denied(bob.get_object, Bucket="kept", Key="b")
    denied(bob.list_objects_v2, Bucket="kept")
    with refused(404, "NoSuchBucketPolicy"):
        alice.get_bucket_policy(Bucket="freed")
    assert [bucket["Name"] for bucket in alice.list_buckets()["Buckets"]] == ["freed", "kept"]
    daemon.stop()
    daemon.assert_clean()
