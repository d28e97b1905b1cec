"""What others hand us runs nothing, leaves its folder by no way, calls nobody (D1 to D12)."""

import contextlib
import csv
import importlib.metadata
import io
import json
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from agents import AGENTS
from experiments.agent_choice import stored_agent
from experiments.cli import main
from experiments.config import AgentConfig
from experiments.evaluate import load_agent, write_frame
from experiments.run_dir import Run, find_runs, write_atomic
from market import load_market
from market.errors import DataError, SettingError
from tests.conftest import address_space, write_prices

ROOT = Path(__file__).resolve().parents[1]
DATES = pd.bdate_range("2020-01-01", periods=260)
PRICES = ("--data", "files", "--data.options.path", "prices.csv")
MODEL = "results/train/policy_gradient/seed_000/model"
TRAIN = ("train", "--agent", "policy_gradient", "--agent.steps", "3", "--agent.lookback", "5")


class Payload:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return (open, ("ran", "w"))


def prices(folder):
    write_prices(folder, DATES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with prices and a finished run, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    prices(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*TRAIN, *PRICES]) == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def archive():
    """A model as stable-baselines3 stores it, with something else inside."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("data", json.dumps({"policy_class": {":serialized:": "gASVFg=="}}))
        file.writestr("policy.pth", pickle.dumps(Payload()))
        file.writestr("../../escaped", "out")
    return buffer.getvalue()


def saved_by(save):
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


CRAFTED = {
    "pickle": pickle.dumps(Payload()),
    "replay": pickle.dumps({"buffer": Payload(), "pos": 3}, protocol=2),
    "torch": saved_by(lambda file: torch.save({"policy": Payload()}, file)),
    "numpy": saved_by(lambda file: np.save(file, np.array([Payload()], object), allow_pickle=True)),
    "zip": archive(),
    "frame": saved_by(lambda file: pd.DataFrame({"a": [Payload()]}).to_pickle(file)),
    "code": b"import os; open('ran', 'w')",
}
FILES = ["agent.json", "scaler.json", "policy.safetensors", "../backtest.parquet"]
FILES += ["../manifest.json", "../config.yaml", "../metrics.jsonl"]


@pytest.mark.parametrize("file", FILES)
def test_no_file_of_a_run_runs_code(here, capsys, file):
    """D1: whatever stands in a run folder is read as data, or refused in one line."""
    run, target = Path(MODEL).parent, Path(MODEL, file)
    for payload in CRAFTED.values():
        target.write_bytes(payload)
        find_runs([run])
        with contextlib.suppress(DataError, SettingError):
            load_agent(Run.read(run), AgentConfig(name="policy_gradient"))
    command = "report" if file.startswith("..") else "evaluate"
    assert main([command, str(run)]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not Path("ran").exists() and not Path("escaped").exists()
    assert not list(here.parent.glob("escaped"))


@pytest.mark.parametrize("payload", CRAFTED)
@pytest.mark.parametrize("name", ["prices.csv", "prices.parquet"])
def test_no_data_file_runs_code(here, payload, name):
    Path(name).write_bytes(CRAFTED[payload])
    with pytest.raises(DataError, match=re.escape(name)):
        load_market("files", path=name)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["pickle", "replay", "torch", "numpy", "frame"])
def test_the_payloads_would_run(tmp_path, monkeypatch, name):
    """A test of the tests: the loaders that we do without run them."""
    monkeypatch.chdir(tmp_path)
    file, last = io.BytesIO(CRAFTED[name]), None
    if name == "torch":
        last = torch.load(file, weights_only=False)["policy"]
    elif name == "numpy":
        last = np.load(file, allow_pickle=True)[0]
    else:
        found = pickle.load(file)  # noqa: S301  # our own
        last = found["buffer"] if name == "replay" else found
    assert Path("ran").exists()
    with contextlib.suppress(AttributeError, TypeError):
        (last["a"][0] if name == "frame" else last).close()


@pytest.mark.parametrize("link", [False, True])
def test_a_stored_model_names_no_code_that_its_settings_do_not(here, capsys, link):
    """D1, D4: config.yaml is innocent, the model's own JSON names a file, maybe behind a link."""
    Path("evil.py").write_text("open('ran', 'w')\nclass Agent: pass\n")
    run = Path(MODEL).parent
    agent = AGENTS["ensemble"](members="cash, equal_weight")
    agent.fit(load_market("files", path="prices.csv"))
    shutil.rmtree(MODEL)
    Path(MODEL).mkdir()
    agent.save(Path(MODEL))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["agent"] = {"name": "ensemble", "members": "cash, equal_weight"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["evaluate", str(run)]) == 0
    stored = Path(MODEL, "settings.json")
    text = stored.read_text().replace("equal_weight", "evil.py:Agent")
    assert "evil" in text
    if link:
        Path("elsewhere.json").write_text(text)
        stored.unlink()
        stored.symlink_to(Path("elsewhere.json").resolve())
    else:
        stored.write_text(text)
    capsys.readouterr()
    for trust in ([], ["--trust"]):  # trusting the settings does not trust what they do not say
        assert main(["evaluate", str(run), *trust]) == 2
        assert "`evil.py:Agent` is code that the run's settings" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_a_model_of_ones_own_is_read_with_its_code(here):
    Path("mine.py").write_text(
        "from agents.baselines import Cash\nclass Mine(Cash):\n    Settings = Cash.Settings\n"
    )
    config = AgentConfig(name="ensemble", settings={"members": "cash, mine.py:Mine"})
    agent = AGENTS["ensemble"](**config.settings)
    agent.fit(load_market("files", path="prices.csv"))
    folder = Path("kept")
    folder.mkdir()
    agent.save(folder)
    assert stored_agent(config, folder).settings == agent.settings
    (folder / "huge.json").touch()
    os.truncate(folder / "huge.json", 200_000_000)  # a hole: takes no room
    with pytest.raises(DataError, match=r"huge\.json: must be at most"):
        stored_agent(config, folder)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['touch ran']", "!!python/name:os.system", "!x y"]
)
def test_tags_of_yaml_build_nothing(here, capsys, tag):
    """D3."""
    Path("x.yaml").write_text(f"experiment: {tag}\n")
    assert main(["train", "x.yaml", *PRICES]) == 2
    assert re.search(r"line 1 of x\.yaml: tag .* is not allowed", capsys.readouterr().err)
    assert not Path("ran").exists()


def command(*argv, cwd, **env):
    """The installed command, as a user runs it."""
    return subprocess.run(
        [Path(sys.executable).with_name("allocgym"), *argv],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | env,
    )


def test_files_in_the_working_folder_shadow_nothing_of_ours(here, tmp_path):
    """D4: somebody's folder holds modules of our names and of our libraries'."""
    for name in ("market", "envs", "agents", "experiments", "yaml", "numpy", "torch", "json"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit('shadowed')\n")
    argv = ("train", "--agent", "equal_weight", "--experiment", "x", *PRICES)
    done = command(*argv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "results/x").is_dir()


@pytest.mark.parametrize("reference", ["os:system", "subprocess:run", "shutil:rmtree"])
def test_pythons_own_functions_are_no_plug_ins(here, capsys, reference):
    assert main([*TRAIN, *PRICES, "--task.reward", reference]) == 2
    assert "is part of Python" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", "a\0b", "x" * 65, "a b"])
def test_no_name_leads_out_of_the_results(here, capsys, name):
    """D5."""
    before = sorted(here.parent.iterdir())
    for key in ("--experiment", "--agent.label"):
        assert main([*TRAIN, *PRICES, "--results", "elsewhere", f"{key}={name}"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path("elsewhere").exists() and sorted(here.parent.iterdir()) == before


def test_no_link_inside_the_results_is_followed_out(here, capsys):
    outside = here.parent / f"{here.name}-outside"
    outside.mkdir()
    Path("elsewhere").mkdir()
    Path("elsewhere/train").symlink_to(outside)
    assert main([*TRAIN, *PRICES, "--results", "elsewhere"]) == 2
    assert "leads out" in capsys.readouterr().err
    assert list(outside.iterdir()) == []


def test_what_is_written_as_csv_holds_no_formula(here, tmp_path):
    """D7: cells are dates and numbers, and no name of an asset stands first in one."""
    assert main(["evaluate", str(Path(MODEL).parent), "--output", "path.csv"]) == 0
    frame = pd.DataFrame(
        {"return": [0.1, -0.2], "weight:=cmd|' /C calc'!A0": [1.0, 0.0]}, DATES[:2]
    )
    write_frame(frame.rename_axis("date"), Path("other.csv"))
    for name in ("path.csv", "other.csv"):
        for row in csv.reader(io.StringIO(Path(name).read_text())):
            for cell in row:
                assert re.fullmatch(r"-?\d[\d.e+-]*", cell) or not cell.startswith(
                    ("=", "+", "-", "@", "\t", "\r")
                ), cell


def test_a_table_that_unpacks_beyond_memory_is_refused_by_its_own_count(here):
    """D8: half a megabyte of Parquet that would be 13 GB of equal rows, with 12 GB to be had."""
    rows = 400_000
    day, one = pa.array(np.zeros(rows, "datetime64[ms]")), pa.array(np.ones(rows, np.float32))
    table = pa.table({"date": day} | {f"A{i}": one for i in range(500)})
    pq.write_table(table, "bomb.parquet", write_statistics=False, row_group_size=rows)
    assert Path("bomb.parquet").stat().st_size < 600_000
    words = r"bomb\.parquet: 400000 dates x 501 assets need about 13 GB, there are (12|\d) GB"
    with address_space(12 * 10**9), pytest.raises(DataError, match=words):
        load_market("files", path="bomb.parquet")


LISTENERS = """
import os, sys

def note(event, given):
    if event == "socket.bind":
        with open(os.environ["NOTES"], "a") as file:
            file.write(f"{given[1]!r}\\n")
    elif event in ("socket.listen", "socket.connect") and len(given) > 1:
        with open(os.environ["NOTES"], "a") as file:
            file.write(f"{given[1]!r}\\n")

sys.addaudithook(note)
"""


@pytest.mark.parametrize(
    "argv",
    [
        ("evaluate", str(Path(MODEL).parent)),
        *(
            pytest.param(argv, marks=pytest.mark.soak)
            for argv in (
                ("compare", "--agents", "equal_weight,buy_and_hold", *PRICES, "--workers", "2"),
                ("report", str(Path(MODEL).parent)),
                ("monitor", str(Path(MODEL).parent)),
                ("explain", str(Path(MODEL).parent)),
                ("walk-forward", "--agents", "equal_weight", *PRICES),
                ("data", "check", "prices.csv"),
                ("data", "audit", *PRICES),
            )
        ),
    ],
    ids=lambda argv: argv[0],
)
def test_no_command_listens_or_calls_beyond_this_machine(here, tmp_path, argv):
    """D9: every bind and connect of the command and its workers, by an audit hook in each."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(LISTENERS)
    hook = {"PYTHONPATH": str(tmp_path / "hook"), "NOTES": str(tmp_path / "notes")}
    done = command(*argv, cwd=here, **hook)
    assert "Traceback" not in done.stderr, done.stderr
    probe = "import socket; socket.socket().bind(('127.0.0.1', 0))"
    subprocess.run([sys.executable, "-c", probe], check=True, env=os.environ | hook)
    *seen, ours = (tmp_path / "notes").read_text().splitlines()
    assert ours == "('127.0.0.1', 0)"  # the hook sees what there is to see
    for address in seen:
        assert address.startswith(("'/", "b'", "'\\x00", "('127.0.0.1'", "('::1'")), address


def test_no_key_is_in_anything_that_is_written(here, capsys, monkeypatch):
    """D10."""
    secret = "5ec2e7" * 6  # of no service
    for name in ("FRED_API_KEY", "WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, secret)
    assert main([*TRAIN, *PRICES, "--experiment", "keys"]) == 0
    assert main(["report", "results/keys"]) == 0
    assert main([*TRAIN, "--data", "fred", "--data.options.api_key", secret]) == 2
    printed = capsys.readouterr()
    assert secret not in printed.out + printed.err
    for path in here.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_libraries_are_newer_than_their_holes():
    """D11: torch before 2.10 ran code despite weights_only, pyarrow before 14.0.1."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line.partition(",")[0] for line in project["dependencies"] if ">=" in line]
    floors = {name: least for name, _, least in (line.partition(">=") for line in lines)}

    def number(text):
        return tuple(int(part) for part in re.findall(r"\d+", text)[:3])

    for name, least in (("torch", "2.10"), ("pyarrow", "14.0.1"), ("jinja2", "3.1.6")):
        assert number(floors[name]) >= number(least)
        assert number(importlib.metadata.version(name)) >= number(least)


def test_files_have_the_users_rights_and_names_nobody_can_foresee(tmp_path, monkeypatch):
    """D12."""
    names, replace = [], os.replace

    def noted(old, new):
        names.append(Path(old).name)
        replace(old, new)

    monkeypatch.setattr(os, "replace", noted)
    for mask in (0o077, 0o022):
        before = os.umask(mask)
        try:
            write_atomic(tmp_path / "x", "text")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask
    assert len(set(names)) == 2 and all(re.search(r"[0-9a-f]{16}", name) for name in names)


def test_a_planted_link_is_not_written_through(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda n: "0" * 16)
    (tmp_path / ".x.0000000000000000.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "x", "theirs")
    assert victim.read_text() == "mine"


def test_a_reference_that_is_no_name_is_refused(here):
    with pytest.raises(SettingError):
        AGENTS["ensemble"](members="cash, ../evil.py:Agent")
