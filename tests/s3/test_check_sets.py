"""`weft check` and `weft inspect` on sets of several volumes and on block devices: damage is named with its volume."""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from daemon import new_data_dir
from test_damage import inspected, run
from test_scrub import flip
from test_volumes import BUCKET, MIB, Served, fill, loop_device, weft

COPIES_ON_DEVICE = (0, 512 * 1024)


class Set:
    """Volumes with objects on them, served once and stopped."""

    def __init__(self, paths: list[Path]):
        self.paths = paths
        devices = [path for path in paths if path.is_block_device()]
        if devices:
            made = weft("format", "--capacity", "256MiB", *paths)
            assert made.returncode == 0, made.stderr
        daemon = Served(paths, "--cores", "2", capacity="256MiB")
        try:
            daemon.start()
            self.sizes = fill(daemon.client())
            daemon.stop()
        finally:
            daemon.discard()

    def check(self, *paths, code: int) -> dict:
        answer = run("check", "--json", *(paths or self.paths))
        assert (answer.returncode, answer.stderr) == (code, ""), answer
        (report,) = json.loads(answer.stdout)
        return report

    def inspected(self, *arguments) -> dict:
        answer = run("inspect", "--json", *self.paths, *arguments)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def place(self, segment: str, offset: int) -> tuple[Path, int]:
        """The file that a place is in, and where."""
        volume = self.paths[int(segment[:2], 16)]
        if not volume.is_block_device():
            return volume / "segments" / f"{segment}.seg", offset
        size = self.inspected()["segment_size_bytes"]
        return volume, MIB + int(segment[2:], 16) * size + offset


@pytest.fixture
def sets():
    """Makes sets of directories (`d`) and devices (`b`): `sets("db")`."""
    with ExitStack() as stack:

        def make(kinds: str) -> Set:
            base = new_data_dir()
            stack.callback(shutil.rmtree, base, ignore_errors=True)
            places = {
                "d": lambda number: base / f"volume-{number}",
                "b": lambda number: stack.enter_context(loop_device(512 * MIB)),
            }
            return Set([places[kind](number) for number, kind in enumerate(kinds)])

        yield make


def extents_of(of: Set, key: str) -> list[dict]:
    records = of.inspected("--key", f"{BUCKET}/{key}")["records"]
    return records[-1]["changes"][0]["value"]["extents"]


@pytest.mark.parametrize("kinds", ["dd", "b", "db", "bbb"])
def test_each_damaged_place_is_named_wherever_it_is(sets, kinds):
    of = sets(kinds)
    report = of.check(code=0)
    assert (report["clean"], report["objects"], report["volumes"]) == (True, len(of.sizes), [str(p) for p in of.paths])
    # Whatever the order.
    assert of.check(*of.paths[::-1], code=0)["volumes"] == report["volumes"]
    large = {key: extents_of(of, key) for key, size in of.sizes.items() if size > 65536}
    assert {extent["segment"][:2] for extents in large.values() for extent in extents} == {
        f"{index:02x}" for index in range(len(kinds))
    }
    expected = set()
    for index in range(len(kinds)):
        key, extent = next((k, e) for k, es in large.items() for e in es if e["segment"].startswith(f"{index:02x}"))
        flip(*of.place(extent["segment"], extent["offset"] + 3000))
        expected.add(("block", str(of.paths[index]), extent["segment"], extent["offset"], key))
    report = of.check(code=1)
    found = {(f["what"], f["volume"], f["segment"], f["offset"], f.get("key")) for f in report["findings"]}
    assert found == expected
    assert f"DAMAGED in {len(kinds)} place" in run("check", *of.paths).stdout


def test_a_set_that_is_not_whole_is_not_judged(sets):
    of = sets("dd")
    for command in ["check", "inspect"]:
        answer = run(command, of.paths[1])
        assert (answer.returncode, answer.stdout) == (2, "")
        assert "is one of a set of 2, of which volume 1 is not given: name all of them" in answer.stderr
        answer = run(command, *of.paths, of.paths[0] / ".")
        assert answer.returncode == 2 and "are one volume" in answer.stderr
        answer = run(command, *of.paths, new_data_dir())
        assert answer.returncode == 2 and "holds no volume" in answer.stderr


def test_two_sets_are_two_reports_and_not_one_view(sets):
    one, other = sets("d"), sets("dd")
    paths = [other.paths[0], one.paths[0], other.paths[1]]
    answer = run("check", "--json", *paths)
    assert answer.returncode == 0, answer
    reports = json.loads(answer.stdout)
    assert [report["volumes"] for report in reports] == [[str(p) for p in other.paths], [str(one.paths[0])]]
    answer = run("inspect", *paths)
    assert answer.returncode == 2 and "not of one set" in answer.stderr


@pytest.mark.parametrize("kinds", ["dd", "db"])
def test_a_member_whose_superblock_is_damaged_is_known_by_the_others(sets, kinds):
    of = sets(kinds)
    last = of.paths[-1]
    copies = COPIES_ON_DEVICE if last.is_block_device() else (0, 4096)
    file = last if last.is_block_device() else last / "superblock"
    flip(file, copies[1] + 100)
    (found,) = of.check(code=1)["findings"]
    assert (found["what"], found["volume"], found["offset"]) == ("superblock-copy", str(last), copies[1])
    flip(file, copies[0] + 100)
    report = of.check(code=1)
    assert {(f["what"], f["volume"], f["offset"]) for f in report["findings"]} == {
        ("superblock", str(last), at) for at in copies
    }
    assert report["objects"] == len(of.sizes)


def test_what_is_in_use_or_not_formatted_is_refused(sets):
    of = sets("b")
    daemon = Served(of.paths, capacity=None)
    try:
        daemon.start()
        answer = run("check", *of.paths)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert "in use" in answer.stderr
    finally:
        daemon.discard()
    with loop_device(512 * MIB) as device:
        answer = run("check", device)
        assert answer.returncode == 2 and "weft format" in answer.stderr, answer.stderr


def test_a_key_is_shown_with_the_bytes_of_all_volumes(sets):
    of = sets("bd")
    shown = of.inspected()
    assert {segment["segment"][:2] for segment in shown["segments"]} == {"00", "01"}
    for key, size in of.sizes.items():
        assert sum(extent["length"] for extent in extents_of(of, key)) == size
    segment = extents_of(of, "002")[0]["segment"]
    assert of.inspected("--segment", segment)["kind"] == "data"
