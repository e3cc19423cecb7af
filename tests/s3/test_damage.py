"""Bits flip and sectors are overwritten in a stored volume: nothing wrong is served, what is whole is still there, and
`weft check` names each place.

A volume with objects of all kinds is stored once, in two starts, and stopped; in the first one the index went to a run.
Each image is a copy of it with one to three places damaged; the seed decides where. What may become of a key follows from
which of its bytes were hit:

- neither what says it nor its bytes: the last version, whole;
- its bytes: the last version or an error, never other bytes;
- its newest record in a log behind the run: acknowledged changes are gone with it, which the daemon must say. Then the
  version before may show again, for a log that lost a record does not know whose it was; or an error, for its bytes
  may have been overwritten since;
- a page of the run on the way to it: an error;
- both copies of the manifest, or of the header in front of it: whatever the logs still say, which the daemon must say.

WEFT_DAMAGE_IMAGES is how many images there are, WEFT_DAMAGE_SEED which.
"""

import itertools
import json
import os
import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from check import MIB, PART, new_upload, pattern, put_part, upload_parts
from conftest import client_for
from daemon import ACCESS_KEY, BINARY, SECRET_KEY, Daemon, new_data_dir, wait_until
from sigv4 import Signer
from wire import Closed, Raw, path_of, xml

IMAGES = int(os.environ.get("WEFT_DAMAGE_IMAGES", "20"))
SEED = int(os.environ.get("WEFT_DAMAGE_SEED", time.time_ns() % 1_000_000))
# One for each worker that may run them.
SHARES = 2
SECTOR, PAGE, BLOCK, BLOCK_HEADER = 512, 4096, 65536, 16
MANIFEST, INDEX_START = 16384, 4096 + 4 * 16384
BUCKETS = ["first-bucket", "second-bucket"]
# The index goes to a run when it has more than 16 MiB in memory: keys and metadata as long as they may be.
MANY_BUCKET, MANY_THREADS, MANY_AT_ONCE, MANY_MAX, MANY_LOOKED_AT = "many-bucket", 6, 300, 6000, 20
SIZES = [0, 1, 700, 4096, 30_000, 65_536, 65_537, 200_000, 700_000]

KINDS = [
    "superblock", "segment header", "watermark", "batch header", "record header", "record changes", "inline payload",
    "seal", "block header", "block payload", "padding", "dead block", "leaf page", "inner page", "manifest", "history",
]  # fmt: skip


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=60)


def inspected(data: Path, *arguments) -> dict:
    answer = run("inspect", data, "--json", *arguments)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@dataclass(frozen=True)
class Region:
    """Bytes of a file of the volume. `is_judged`: a change of any of them must be named; None: may be."""

    kind: str
    file: str
    start: int
    end: int
    is_judged: bool | None = True
    # What refers to it: without that, nothing says that it is there.
    said_by: "tuple[Region, ...]" = ()

    def meets(self, file: str, start: int, end: int) -> bool:
        return self.file == file and self.start < end and start < self.end


@dataclass
class Version:
    """What a record or a run says of a key: in a batch, or in a leaf, which follows the pages that lead to it."""

    body: bytes | None
    said_by: tuple[Region, ...]
    extents: list[Region]


@dataclass
class Image:
    """The volume as it was stored, and what lies where in it."""

    data: Path
    regions: list[Region] = field(default_factory=list)
    buckets: dict[str, tuple[Region, ...]] = field(default_factory=dict)
    lost_names: dict[str, str] = field(default_factory=dict)
    versions: dict[tuple[str, str], list[Version]] = field(default_factory=dict)
    # All that was ever stored under a key.
    before: dict[tuple[str, str], list[bytes | None]] = field(default_factory=dict)
    upload: tuple[Region, ...] = ()
    # Both of either lost: nothing leads to the run.
    index_headers: list[Region] = field(default_factory=list)
    manifests: list[Region] = field(default_factory=list)
    # Of a page, itself behind those that lead to it; and which run it is of, of which 0 is the newest.
    pages: dict[tuple[str, int], tuple[Region, ...]] = field(default_factory=dict)
    ranks: dict[Region, int] = field(default_factory=dict)
    log_headers: dict[str, list[Region]] = field(default_factory=dict)
    batches: list[Region] = field(default_factory=list)


def store(daemon: Daemon) -> dict[tuple[str, str], list[bytes | None]]:
    """Stores objects of all kinds; each key's bodies in order, None for a delete."""
    history: dict[tuple[str, str], list[bytes | None]] = {}
    dice = random.Random(1)
    s3 = client_for(daemon.endpoint)

    def put(bucket: str, key: str, size: int) -> None:
        body = pattern(size, dice.getrandbits(30))
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        history.setdefault((bucket, key), []).append(body)

    for bucket in [*BUCKETS, MANY_BUCKET]:
        s3.create_bucket(Bucket=bucket)
    for bucket in BUCKETS:
        for size in SIZES:
            put(bucket, f"once/{size}", size)
            put(bucket, f"twice/{size}", size)
            put(bucket, f"gone/{size}", size)

    def put_long(number: int) -> None:
        key = f"{number}/{'k' * 1000}"
        metadata = {"m": "v" * 1990}
        s3.put_object(Bucket=MANY_BUCKET, Key=key, Body=b"", Metadata=metadata, CacheControl="c" * 1990)
        history[MANY_BUCKET, key] = [b""]

    numbers = iter(range(MANY_MAX))
    with ThreadPoolExecutor(MANY_THREADS) as threads:
        while not has_run(daemon.data):
            several = list(itertools.islice(numbers, MANY_AT_ONCE))
            assert several, "the index was not written"
            list(threads.map(put_long, several))
    for bucket in BUCKETS:
        for size in SIZES:
            put(bucket, f"behind/{size}", size)
            put(bucket, f"once/{size}", size)
    daemon.stop()
    daemon.start()
    for bucket in BUCKETS:
        parts = [pattern(PART, 1), pattern(300_000, 2)]
        upload_parts(s3, bucket, "parts", parts)
        history[bucket, "parts"] = [b"".join(parts)]
        for size in SIZES:
            put(bucket, f"twice/{size}", dice.choice(SIZES))
            s3.delete_object(Bucket=bucket, Key=f"gone/{size}")
            history[bucket, f"gone/{size}"].append(None)
            put(bucket, f"late/{size}", size)
    put_part(s3, BUCKETS[0], "open", new_upload(s3, BUCKETS[0], "open"), 1, pattern(100_000, 3))
    return history


def has_run(data: Path) -> bool:
    """Whether a confirmed manifest was written."""
    for path in (data / "segments").glob("*.seg"):
        with path.open("rb") as segment:
            front = segment.read(INDEX_START)
        copies = [front[PAGE + number * MANIFEST :] for number in range(4)]
        if any(copy[:4] == b"WFTC" and copy[6] & 1 for copy in copies):
            return True
    return False


@pytest.fixture(scope="module")
def image():
    daemon = Daemon("--cores", "1", "--memory", "256MiB", capacity="256MiB").start()
    history = store(daemon)
    daemon.stop()
    found = Image(daemon.data)
    survey(found, history)
    assert run("check", daemon.data).returncode == 0
    yield found
    daemon.discard()


def survey(image: Image, history: dict) -> None:
    """Learns from `weft inspect` what lies where."""
    image.regions += [Region("superblock", "superblock", at, at + PAGE) for at in (0, PAGE)]
    # What counts of each name: order, whether it is a put, extents, what says so.
    live: dict[tuple, tuple] = {}
    dead: list[Region] = []
    behind: dict[tuple[str, str], list[tuple]] = {}
    in_run: dict[tuple[str, str], tuple] = {}

    def take(change: dict, order: tuple, said_by: tuple[Region, ...], is_in_run: bool) -> None:
        extents = [extent_region(e) for e in (change.get("value") or {}).get("extents", [])]
        name = (change["bucket"], change.get("key"), change.get("upload"), change.get("part"))
        if name[1] is None:
            image.buckets[name[0]] = said_by
            image.lost_names[name[0]] = f"lost-{order[0] << 40 | order[1]:016x}"
        elif name[2] is None and is_in_run:
            assert name[:2] not in in_run, "a key in two runs"
            in_run[name[:2]] = (said_by, extents)
        elif name[2] is None:
            behind.setdefault(name[:2], []).append((order, said_by, extents))
        elif name[1] == "open" and name[3] is None:
            image.upload = said_by
        dead.extend(extents)
        if name not in live or live[name][0] < order:
            live[name] = (order, change["operation"] == "put", extents, said_by)

    segments = inspected(image.data)["segments"]
    shown = {s["segment"]: inspected(image.data, "--segment", s["segment"]) for s in segments}
    manifest = next(m for s in shown.values() for m in s["manifests"] if m["counts"])
    assert manifest["start"] == 1 and manifest["confirmed"] and manifest["runs"], manifest
    for segment in segments:
        file = f"segments/{segment['segment']}.seg"
        # Without its header, what holds nothing cannot be told from what was never used.
        is_used = any((image.data / file).read_bytes()[2 * PAGE :]) or None
        headers = [Region("segment header", file, at, at + PAGE // 2, is_used) for at in (0, PAGE // 2)]
        image.regions += headers
        if segment["kind"] == "index":
            survey_index(image, file, headers, shown[segment["segment"]])
        if segment["kind"] != "log":
            continue
        image.log_headers[file] = headers
        batches = shown[segment["segment"]]["batches"]
        tail = [batch for batch in batches if is_tail(segment, batch, manifest)]
        image.regions += [
            Region("history", file, b["offset"], b["offset"] + b["length"], False) for b in batches if b not in tail
        ]
        if tail:
            image.regions.append(Region("watermark", file, PAGE, PAGE + 44))
        for batch in tail:
            survey_batch(image, file, batch)
            place = image.batches[-1]
            for record in batch["records"]:
                order = (*map(int, record["sequence"].split(".")), record["generation"], record["offset"])
                for change in record["changes"]:
                    take(change, order, (place,), False)
    survey_pages(image, manifest, shown)
    for page in (page for s in shown.values() for page in s["pages"]):
        for entry in page["entries"]:
            path = image.pages[f"segments/{page['segment']}.seg", page["offset"]]
            take(entry, (*map(int, entry["sequence"].split(".")), 0, 0), path, True)
    image.before = history
    for key, bodies in history.items():
        made = [each[1:] for each in sorted(behind.get(key, []), key=lambda each: each[0])]
        made = [in_run[key], *made] if key in in_run else [(), *made] if len(made) < len(bodies) else made
        assert made and made[0] and len(made) <= len(bodies), key
        image.versions[key] = [Version(body, *each) for each, body in zip(made, bodies[-len(made) :])]
    assert any(key in in_run for key in behind) and any(key not in in_run for key in behind)
    is_live = {
        extent: said_by
        for (bucket, key, upload, part), (_, is_put, extents, said_by) in live.items()
        for extent in extents
        if is_put and (part is None or live[bucket, key, upload, None][1])
    }
    for extent, said_by in is_live.items():
        survey_extent(image, extent, said_by)
    image.regions += [
        Region("dead block", e.file, e.start, e.end, False)
        for e in dead
        if e.kind == "blocks" and e not in is_live
    ]


def is_tail(segment: dict, batch: dict, manifest: dict) -> bool:
    """Whether a batch is not in the run."""
    covered = manifest["covered"]
    place = (segment["start"], segment["generation"], batch["offset"])
    return place >= (manifest["start"], covered["generation"], covered["offset"])


def survey_index(image: Image, file: str, headers: list[Region], shown: dict) -> None:
    counts = any(manifest["counts"] for manifest in shown["manifests"])
    is_judged = True if counts or shown["pages"] else None
    for manifest in shown["manifests"]:
        # Zeros fill the last of its pages.
        start = manifest["offset"]
        end = start + 80 + sum(48 + 12 * len(run["extents"]) for run in manifest["runs"])
        image.regions.append(Region("manifest", file, start, end, is_judged))
        if manifest["counts"]:
            image.manifests.append(image.regions[-1])
    if counts:
        image.index_headers += headers


def survey_pages(image: Image, manifest: dict, shown: dict) -> None:
    """Each page follows those that lead to it."""
    pages = {(s, page["offset"]): page for s in shown for page in shown[s]["pages"]}
    waiting = [(run["root"], (), rank) for rank, run in enumerate(manifest["runs"])]
    while waiting:
        stretch, above, rank = waiting.pop()
        page = pages.pop((stretch["segment"], stretch["offset"]))
        file, start = f"segments/{stretch['segment']}.seg", stretch["offset"]
        kind = "inner page" if page["level"] else "leaf page"
        region = Region(kind, file, start, start + stretch["length"], True, above)
        image.regions.append(region)
        image.pages[file, start] = (*above, region)
        image.ranks[region] = rank
        waiting += [(child, (*above, region), rank) for child in page["children"]]
    assert not pages, "pages that no page leads to"
    kinds = [path[-1].kind for path in image.pages.values()]
    assert kinds.count("leaf page") > 100 and kinds.count("inner page") > 2


def survey_batch(image: Image, file: str, batch: dict) -> None:
    start, end = batch["offset"], batch["offset"] + batch["length"]
    records_end = max([r["offset"] + r["length"] for r in batch["records"]], default=start + 64)
    image.batches.append(Region("batch", file, start, records_end))
    if batch["seal"]:
        image.regions.append(Region("seal", file, start, records_end))
    else:
        image.regions.append(Region("batch header", file, start, start + 64))
    if records_end < end:
        image.regions.append(Region("padding", file, records_end, end, False))
    for record in batch["records"]:
        at = record["offset"]
        body = at + record["length"] - record["body_length"]
        image.regions += [Region("record header", file, at, at + 28), Region("record changes", file, at + 28, body)]
        if record["body_length"]:
            image.regions.append(Region("inline payload", file, body, at + record["length"]))


def extent_region(extent: dict) -> Region:
    file, start = f"segments/{extent['segment']}.seg", extent["offset"]
    if extent["layout"] == "record":
        return Region("record", file, start, start + extent["length"])
    # Up to the payload's end in the last block: padding is nobody's.
    length = extent["length"]
    payload_end = (length - 1) // (BLOCK - BLOCK_HEADER) * BLOCK + BLOCK_HEADER + (length - 1) % (BLOCK - BLOCK_HEADER)
    return Region("blocks", file, start, start + payload_end + 1)


def survey_extent(image: Image, extent: Region, said_by: tuple[Region, ...]) -> None:
    file = extent.file
    if extent.kind != "blocks":
        if said_by[0].kind != "batch" and extent.start < extent.end:
            image.regions.append(Region("inline payload", file, extent.start, extent.end, True, said_by))
        return
    for at in range(extent.start, extent.end, BLOCK):
        payload = at + BLOCK_HEADER
        image.regions.append(Region("block header", file, at, payload, True, said_by))
        image.regions.append(Region("block payload", file, payload, min(at + BLOCK, extent.end), True, said_by))
    if extent.end % PAGE:
        image.regions.append(Region("padding", extent.file, extent.end, extent.end + PAGE - extent.end % PAGE, False))


class Damaged:
    """A copy of the image with some places damaged."""

    def __init__(self, image: Image, dice: random.Random, kinds: list[str]):
        self.image = image
        self.data = new_data_dir()
        shutil.copytree(image.data, self.data, dirs_exist_ok=True)
        (self.data / "weft.lock").unlink(missing_ok=True)
        self.changed: list[tuple[str, int, int]] = []
        self.said: list[str] = []
        self.cores = dice.choice(["1", "2"])
        for kind in kinds:
            self.damage(dice, kind)

    def damage(self, dice: random.Random, kind: str) -> None:
        region = dice.choice([region for region in self.image.regions if region.kind == kind])
        at = dice.randrange(region.start, region.end)
        how = dice.choice(["flip", "flip", "bytes", "sector", "page", "misdirected"])
        path = self.data / region.file
        content = bytearray(path.read_bytes())
        before = bytes(content)
        if how == "flip":
            content[at] ^= 1 << dice.randrange(8)
        elif how == "bytes":
            length = min(dice.randrange(1, 32), region.end - at)
            content[at : at + length] = dice.randbytes(length)
        elif how == "misdirected":
            # A page of this volume lands where another belongs.
            start = at - at % PAGE
            other = dice.choice([region for region in self.image.regions if region.file != "superblock"])
            page = (self.image.data / other.file).read_bytes()[other.start - other.start % PAGE :][:PAGE]
            content[start : start + PAGE] = page
        else:
            size = SECTOR if how == "sector" else PAGE
            start = at - at % size
            content[start : start + size] = dice.choice([bytes(size), b"\xff" * size, dice.randbytes(size)])
        path.write_bytes(content)
        changed = [i for i in range(at - at % PAGE, min(at - at % PAGE + PAGE, len(before))) if content[i] != before[i]]
        if changed:
            # Byte by byte, as runs.
            runs = [[changed[0], changed[0] + 1]]
            for i in changed[1:]:
                if i == runs[-1][1]:
                    runs[-1][1] = i + 1
                else:
                    runs.append([i, i + 1])
            self.changed += [(region.file, start, end) for start, end in runs]
        self.said.append(f"{how} in {kind} at {region.file}:{at}")

    def is_hit(self, region: Region) -> bool:
        return any(region.meets(*change) for change in self.changed)

    def is_log_lost(self, file: str) -> bool:
        return file in self.image.log_headers and all(map(self.is_hit, self.image.log_headers[file]))

    def is_lost(self, said_by: tuple[Region, ...]) -> bool:
        """Whether what says something is not whole: a batch, or a page of the run or one on the way to it."""
        is_in_run = any(region.kind != "batch" for region in said_by)
        return any(self.is_hit(r) or self.is_log_lost(r.file) for r in said_by) or is_in_run and self.is_index_lost()

    def is_index_lost(self) -> bool:
        return all(map(self.is_hit, self.image.manifests)) or all(map(self.is_hit, self.image.index_headers))

    def is_before_hit(self, page: Region) -> bool:
        """Whether a page of a newer run is hit, which is asked first."""
        rank = self.image.ranks.get(page, 0)
        return rank > 0 and any(self.is_hit(other) for other, of in self.image.ranks.items() if of < rank)

    def is_page_hit(self) -> bool:
        return any(self.is_hit(page) for path in self.image.pages.values() for page in path)

    def is_superblock_lost(self) -> bool:
        return all(self.is_hit(region) for region in self.image.regions if region.kind == "superblock")

    def outcomes(self, key: tuple[str, str]) -> tuple[list[bytes | None], bool]:
        """What a key may hold, and whether an error may be said instead."""
        bodies: list[bytes | None] = []
        may_fail = self.is_index_lost()
        for version in reversed(self.image.versions[key]):
            bodies.append(version.body)
            may_fail |= any(self.is_hit(extent) for extent in version.extents) or self.is_before_hit(version.said_by[-1])
            if not self.is_lost(version.said_by):
                return bodies, may_fail
            # What was there before it may be overwritten.
            may_fail = True
            if version.said_by[0].kind != "batch":
                # The page that says it is refused. Without a manifest the logs may still say what was before.
                if self.is_index_lost():
                    break
                return bodies, True
        # Of a key that the run does not have, it must be asked.
        return [*bodies, None, *(self.image.before.get(key, []) if self.is_index_lost() else [])], may_fail or self.is_page_hit()

    def discard(self) -> None:
        shutil.rmtree(self.data)


def check_names_each_place(damaged: Damaged) -> None:
    answer = run("check", damaged.data, "--json")
    assert answer.returncode in (0, 1), (answer.returncode, answer.stderr)
    (report,) = json.loads(answer.stdout)
    assert report["clean"] == (answer.returncode == 0) == (not report["findings"])
    told = [(named_file(each), each.get("offset"), each.get("length")) for each in report["findings"] + report["notes"]]
    for region in damaged.image.regions:
        if not region.is_judged or region.said_by and damaged.is_lost(region.said_by):
            continue
        for file, start, end in damaged.changed:
            if region.meets(file, start, end):
                is_named = any(f == file and at < end and start < at + max(length, 1) for f, at, length in told)
                assert is_named, f"{region.kind} {file} {start} to {end} is not named: {told}"
    if not any(damaged.is_hit(region) for region in damaged.image.regions if region.is_judged is not False):
        assert report["clean"], report


def named_file(finding: dict) -> str | None:
    if finding["where"] == "superblock":
        return "superblock"
    return f"segments/{finding['segment']}.seg" if "segment" in finding else None


def serves_what_is_whole(damaged: Damaged) -> None:
    daemon = Daemon("--cores", damaged.cores, capacity="256MiB", data=damaged.data)
    try:
        if damaged.is_superblock_lost():
            with pytest.raises(AssertionError, match="ended with 1 while starting"):
                daemon.start()
            assert "is damaged in both copies" in daemon.log, daemon.log
            return
        daemon.start()
        serves(damaged, daemon)
        daemon.stop()
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
        daemon.log_path.unlink(missing_ok=True)


def serves(damaged: Damaged, daemon: Daemon) -> None:
    image = damaged.image
    raw = Raw(daemon.endpoint, Signer(ACCESS_KEY, SECRET_KEY))
    listing = raw.request("GET", "/")
    assert listing.status == 200 or damaged.is_page_hit(), listing
    buckets = [entry.findtext("Name") for entry in xml(listing.body).iterfind("Buckets/Bucket")]
    if damaged.is_index_lost() or any(damaged.is_lost((b,)) for b in image.batches if b.end - b.start > 64):
        assert "damaged" in daemon.log, f"changes were lost without a word:\n{daemon.log}"
    if damaged.is_page_hit() and not damaged.is_index_lost():
        # All pages are read while clients are served.
        wait_until(lambda: "index page at" in daemon.log, 20, "damage of the index is told")
    names = {}
    for bucket in [*BUCKETS, MANY_BUCKET]:
        names[bucket] = bucket
        if damaged.is_lost(image.buckets[bucket]) and bucket not in buckets:
            names[bucket] = image.lost_names[bucket]
            if names[bucket] not in buckets and (damaged.is_page_hit() or damaged.is_index_lost()):
                # Nor can be read which buckets there are.
                del names[bucket]
                continue
        assert names[bucket] in buckets or listing.status != 200, (bucket, buckets)
    listed = {}
    for bucket in names:
        page = raw.request("GET", f"/{names[bucket]}?list-type=2")
        if page.status != 200:
            assert damaged.is_page_hit(), page
            continue
        found = {entry.findtext("Key"): int(entry.findtext("Size")) for entry in xml(page.body).iterfind("Contents")}
        listed[bucket] = found
    many = [key for key in image.versions if key[0] == MANY_BUCKET]
    others = [key for key in image.versions if key[0] != MANY_BUCKET]
    for bucket, key in others + random.Random(len(daemon.log)).sample(many, MANY_LOOKED_AT):
        if bucket not in names:
            continue
        bodies, may_fail = damaged.outcomes((bucket, key))
        # Nor may a bucket whose record is in doubt.
        may_fail |= listing.status != 200
        found = look(raw, names[bucket], key)
        if found is Ellipsis:
            assert may_fail, f"{bucket}/{key} is whole and cannot be read:\n{daemon.log}"
            continue
        assert found in bodies, f"{bucket}/{key}: {found and found[:40]!r} is none of {len(bodies)} versions"
        if bucket in listed and bucket != MANY_BUCKET:
            assert listed[bucket].get(key) == (None if found is None else len(found)), f"{bucket}/{key} in LIST"
    if not damaged.is_lost(image.upload) and not damaged.is_page_hit() and BUCKETS[0] in names:
        uploads = xml(raw.request("GET", f"/{names[BUCKETS[0]]}?uploads").body).iterfind("Upload")
        begun = {entry.findtext("Key") for entry in uploads}
        # An upload goes on when the record that completed it is lost.
        is_completed = not damaged.is_lost(image.versions[BUCKETS[0], "parts"][-1].said_by)
        assert begun in ([{"open"}] if is_completed else [{"open"}, {"open", "parts"}])


def look(raw: Raw, bucket: str, key: str):
    """The bytes that a GET gives; None if there is no such key, `...` for an error."""
    try:
        got = raw.request("GET", path_of(bucket, key))
    except Closed:
        return ...
    if got.status == 404:
        return None
    if got.status == 200:
        return got.body
    assert got.refusal == (500, "InternalError"), got
    return ...


@pytest.mark.timeout(120 + 3 * IMAGES)
@pytest.mark.parametrize("share", range(SHARES))
def test_a_damaged_volume_serves_nothing_wrong_and_check_names_the_place(image, share):
    for number in range(share, IMAGES, SHARES):
        dice = random.Random(f"{SEED}/{number}")
        kinds = [KINDS[number % len(KINDS)]] + dice.choices(KINDS, k=dice.choice([0, 0, 1, 2]))
        damaged = Damaged(image, dice, kinds)
        try:
            check_names_each_place(damaged)
            serves_what_is_whole(damaged)
        except AssertionError as error:
            raise AssertionError(f"WEFT_DAMAGE_SEED={SEED} image {number} ({'; '.join(damaged.said)}): {error}") from error
        damaged.discard()


def test_check_refuses_while_a_daemon_runs(own_daemon):
    daemon = own_daemon(capacity="256MiB").start()
    answer = run("check", daemon.data)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "is in use by another weft" in answer.stderr
    daemon.stop()
    assert run("check", daemon.data).returncode == 0


def test_check_of_what_is_no_volume_is_an_error(tmp_path):
    answer = run("check", tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "holds no volume" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_segment_is_named(own_daemon):
    daemon = own_daemon(capacity="256MiB").start()
    s3 = client_for(daemon.endpoint)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="large", Body=pattern(3 * MIB))
    daemon.stop()
    extents = inspected(daemon.data, "--key", "bucket/large")["records"][0]["changes"][0]["value"]["extents"]
    (daemon.data / "segments" / f"{extents[-1]['segment']}.seg").unlink()
    answer = run("check", daemon.data, "--json")
    assert answer.returncode == 1
    findings = json.loads(answer.stdout)[0]["findings"]
    assert {(each["what"], each["segment"], each.get("key")) for each in findings} == {
        ("segment-missing", extents[-1]["segment"], None),
        ("extent", extents[-1]["segment"], "large"),
    }


# It may be the first that needs the image.
@pytest.mark.timeout(300)
def test_a_manifest_that_is_lost_is_told(image):
    """Both copies of the one that counts: a start may go by an older one, and says so."""
    damaged = Damaged(image, random.Random(1), [])
    for region in image.manifests:
        with (damaged.data / region.file).open("r+b") as segment:
            segment.seek(region.start + 60)
            segment.write(b"\xff")
        damaged.changed.append((region.file, region.start + 60, region.start + 61))
    answer = run("check", damaged.data, "--json")
    assert answer.returncode == 1
    findings = json.loads(answer.stdout)[0]["findings"]
    told = {(each["what"], named_file(each), each.get("offset")) for each in findings}
    assert {("manifest", region.file, region.start) for region in image.manifests} <= told, told
    serves_what_is_whole(damaged)
    damaged.discard()
