"""Fixtures: a server for the session (or WEFT_TEST_ENDPOINT), clients, a fresh bucket for each test."""

import itertools
import os
import uuid

import boto3
import daemon as daemon_module
import pytest
from botocore.config import Config
from daemon import ACCESS_KEY, BINARY, SECRET_KEY, Daemon
from faulty_disk import FaultyDisk
from sigv4 import Signer
from wire import Raw

EXTERNAL = os.environ.get("WEFT_TEST_ENDPOINT")
_run = uuid.uuid4().hex[:8]
_buckets = itertools.count()


@pytest.fixture(scope="session")
def server():
    """The daemon that most tests share; None when an outside endpoint is tested."""
    if EXTERNAL:
        yield None
        return
    shared = Daemon().start()
    yield shared
    shared.assert_alive()
    shared.stop()
    shared.discard()


@pytest.fixture(scope="session")
def endpoint(server) -> str:
    return EXTERNAL.rstrip("/") if EXTERNAL else server.endpoint


@pytest.fixture
def own_daemon():
    """Makes daemons that only this test uses: `own_daemon("--cores", "1", capacity="256MiB")`."""
    if EXTERNAL and not BINARY.exists():
        pytest.skip("needs the weft binary, and an outside endpoint is tested")
    made = []

    def make(*flags: str, **options) -> Daemon:
        made.append(Daemon(*flags, **options))
        return made[-1]

    yield make
    for one in made:
        one.discard()


@pytest.fixture
def faulty_disk():
    """A disk that fails on command; to be asked for before `own_daemon`, which ends before it is unmounted."""
    disk = FaultyDisk()
    yield disk
    disk.clear()
    disk.close()


def client_for(endpoint: str, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY, region="us-east-1", **config):
    """A boto3 client that does not retry, so that each test sees the first answer."""
    settings = {"retries": {"total_max_attempts": 1}, "s3": {"addressing_style": "path"}, "max_pool_connections": 60}
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=Config(**(settings | config)),
    )


@pytest.fixture(scope="session")
def s3(endpoint):
    return client_for(endpoint)


@pytest.fixture(scope="session")
def raw(endpoint) -> Raw:
    return Raw(endpoint, Signer(ACCESS_KEY, SECRET_KEY))


def new_bucket_name() -> str:
    return f"t-{_run}-{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}-{next(_buckets)}"


@pytest.fixture
def bucket(s3):
    """An empty bucket. On an outside endpoint it is emptied and removed again."""
    name = new_bucket_name()
    s3.create_bucket(Bucket=name)
    yield name
    if EXTERNAL:
        remove_bucket(s3, name)


@pytest.fixture
def second_bucket(s3):
    name = new_bucket_name()
    s3.create_bucket(Bucket=name)
    yield name
    if EXTERNAL:
        remove_bucket(s3, name)


def remove_bucket(s3, name: str) -> None:
    for upload in s3.list_multipart_uploads(Bucket=name).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        for entry in page.get("Contents", []):
            s3.delete_object(Bucket=name, Key=entry["Key"])
    s3.delete_bucket(Bucket=name)


def pytest_sessionstart(session):
    if not EXTERNAL and not BINARY.exists():
        pytest.exit(f"no binary at {BINARY}: build it, or set WEFT_BINARY or WEFT_TEST_ENDPOINT", returncode=3)
    daemon_module.DATA_ROOT.mkdir(parents=True, exist_ok=True)
