"""Checkpoints: whole or not there, noticed when damaged, and the one before takes over."""

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.checkpoints import FILES, Checkpoints
from market.errors import DataError, SettingError

STATE = {"step": 3, "weights": torch.arange(40.0), "held": np.linspace(0.0, 1.0, 50)}


def store(folder: Path, count: int = 2) -> Checkpoints:
    made = Checkpoints(folder)
    for number in range(1, count + 1):
        made.save(STATE | {"step": number}, {"place": number})
    return made


def step(folder: Path) -> int:
    found = Checkpoints(folder).newest()
    assert found is not None
    assert torch.equal(found.state["weights"], STATE["weights"])  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.state["held"], STATE["held"])
    assert found.about == {"place": found.state["step"]}
    return int(found.state["step"])


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path):
    assert Checkpoints(tmp_path).newest() is None
    store(tmp_path, 5)
    assert Checkpoints(tmp_path).numbers() == [4, 5]
    assert step(tmp_path) == 5
    again = Checkpoints(tmp_path)
    again.newest()
    assert again.save(STATE | {"step": 6}, {"place": 6}) == 6
    assert Checkpoints(tmp_path).numbers() == [5, 6]
    again.clear()
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_and_every_cut_is_noticed_and_the_one_before_takes_over(tmp_path, rng):
    store(tmp_path)
    newest, kept = tmp_path / "checkpoints/000002", tmp_path / "kept"
    shutil.copytree(newest, kept)
    files = sorted(kept.iterdir())
    assert len(files) == 4
    for number in range(200):
        file = files[number % 4]
        data = bytearray(file.read_bytes())
        place = int(rng.integers(len(data)))
        if number % 8 < 4:
            data[place] ^= 1 << int(rng.integers(8))
        else:
            del data[place:]
        (newest / file.name).write_bytes(data)
        found = Checkpoints(tmp_path).newest()
        assert found is not None and found.number == 1, f"{file.name} at {place}"
        (why,) = found.damaged
        assert str(newest) in why and file.name in why
        shutil.copy(file, newest / file.name)
    assert step(tmp_path) == 2


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_file_that_is_missing_is_named(tmp_path, name):
    store(tmp_path)
    (tmp_path / "checkpoints/000002" / name).unlink()
    found = Checkpoints(tmp_path).newest()
    assert found is not None and found.number == 1
    assert f"{name}: No such file" in found.damaged[0]


def test_what_is_damaged_makes_room_and_what_is_sound_stays(tmp_path):
    store(tmp_path)
    (tmp_path / "checkpoints/000002/state.json").write_text("{}")
    made = Checkpoints(tmp_path)
    made.newest()
    made.save(STATE | {"step": 3}, {"place": 3})
    assert made.numbers() == [1, 3]
    assert step(tmp_path) == 3


def test_when_all_are_damaged_each_is_named_and_none_removed(tmp_path):
    store(tmp_path)
    for number in (1, 2):
        (tmp_path / f"checkpoints/00000{number}/arrays.npz").write_bytes(b"")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    with pytest.raises(
        DataError, match=r"no checkpoint can be used: .*000002: arrays.*000001: arr"
    ):
        Checkpoints(tmp_path).newest()
    assert {path: path.read_bytes() for path in before} == before


def test_what_lies_beside_a_checkpoint_can_make_it_useless(tmp_path):
    store(tmp_path)

    def check(about):
        if about["place"] == 2:
            raise DataError("the curves are not those")

    found = Checkpoints(tmp_path).newest(check)
    assert found is not None and found.number == 1
    assert "the curves are not those" in found.damaged[0]


@pytest.mark.parametrize("limit", [0, 100, 1500])
def test_a_full_disk_is_named_and_the_old_checkpoint_still_loads(tmp_path, limit):
    made = store(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = STATE | {"step": 2, "more": np.zeros(10_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(SettingError, match=r"cannot write .*checkpoints.* bytes\): File too"):
            made.save(large, {"place": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000001"]
    assert step(tmp_path) == 1
    assert made.save(STATE | {"step": 2}, {"place": 2}) == 2
    assert step(tmp_path) == 2


def test_each_file_is_on_the_disk_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    """What a loss of power must find: the order of the calls that matter."""
    made, calls = store(tmp_path, 1), []
    fsync, rename = os.fsync, os.rename

    def synced(handle):
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def renamed(old, new):
        calls.append(("rename", Path(new).name))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    made.save(STATE | {"step": 2}, {"place": 2})
    names = [name for _, name in calls]
    assert names[:4] == [*FILES, "manifest.json"]
    assert names[4].startswith(".tmp-")  # the folder of those files
    assert calls[5:] == [("rename", "000002"), ("fsync", "checkpoints")]


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_system_is_asked_in_that_order(tmp_path):
    """The same, as the system saw it."""
    store(tmp_path, 1)
    log = tmp_path / "strace"
    watched = ["strace", "-f", "-y", "--seccomp-bpf", "-o", log, "-e", f"trace={CALLS}"]
    subprocess.run(
        [*watched, sys.executable, "-c", SAVE, tmp_path],
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
    )
    asked = re.findall(r"(fsync|rename)\w*\(.*?([^/<>\"]+)[>\"]\)? += 0", log.read_text())
    names = [name for _, name in asked]
    assert names[:4] == [*FILES, "manifest.json"]
    assert names[4].startswith(".tmp-")
    assert asked[5:] == [("rename", "000002"), ("fsync", "checkpoints")]


CALLS = "fsync,fdatasync,rename,renameat,renameat2"
SAVE = """
import sys
from pathlib import Path
import numpy as np
from experiments.checkpoints import Checkpoints
Checkpoints(Path(sys.argv[1])).save({"held": np.zeros(9)}, {})
"""


def test_nothing_that_was_left_half_written_is_read_or_stays(tmp_path):
    made = store(tmp_path, 1)
    left = tmp_path / "checkpoints/.tmp-0123"
    left.mkdir()
    (left / FILES[0]).write_text("half")
    assert step(tmp_path) == 1
    made.save(STATE | {"step": 2}, {"place": 2})
    assert not left.exists()


def test_no_checkpoint_holds_a_pickle(tmp_path):
    store(tmp_path, 1)
    with np.load(tmp_path / "checkpoints/000001/arrays.npz", allow_pickle=False) as arrays:
        assert [array.dtype.hasobject for array in arrays.values()] == [False]
    raw = b"".join(path.read_bytes() for path in (tmp_path / "checkpoints/000001").iterdir())
    assert b"pickle" not in raw
