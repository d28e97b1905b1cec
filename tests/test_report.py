"""The page against numbers computed here, hostile text, broken runs, and a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.figures import Mark, thin
from experiments.pictures import Exhibit, allocations
from experiments.report import render_report, write_report
from experiments.run_dir import RunFolder, find_runs
from experiments.runs import Run
from experiments.summary import summarise
from experiments.verdict import together
from market.errors import DataError, SettingError

T = 520
DAYS = pd.date_range("2016-01-05", periods=T, freq="B", name="date")
ASSETS = ["sp500", "treasury", "gold", "cash"]
CASH_RATE = 5e-5
LEARNERS, FIXED = ("dqn", "lstm", "ppo", "sac"), ("buy_and_hold", "equal_weight", "mean_variance")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
MINUS = "\N{MINUS SIGN}"
NOTE = "Equity indices are price-only, about 2 % a year short of total return."


def play(rng, market, assets=ASSETS):
    """A back-test of weights that wander, played by hand on a random walk."""
    raw = np.exp(rng.normal(0, 1, len(assets)) + rng.normal(0, 0.05, (T, len(assets))).cumsum(0))
    targets, held = raw / raw.sum(axis=1, keepdims=True), np.eye(len(assets))[-1]
    rows, value = [], 1.0
    for target, returns in zip(targets, market, strict=True):
        turnover = 0.5 * np.abs(target - held)[:-1].sum()
        cost = 0.001 * turnover
        change = (1 - cost) * (1 + target @ returns) - 1
        value *= 1 + change
        held = target * (1 + returns) / (1 + target @ returns)
        rows.append([value, change, cost, turnover, CASH_RATE, *target, *held])
    names = ["value", "portfolio_return", "cost", "turnover", "risk_free"]
    names += [f"target:{asset}" for asset in assets] + [f"held:{asset}" for asset in assets]
    return pd.DataFrame(rows, columns=names, index=DAYS)


def returns_of(rng, assets=ASSETS):
    market = rng.normal(0.0003, 0.008, (T, len(assets)))
    market[:, -1] = CASH_RATE
    return market


def write_run(root, agent, seed, frame, rng, curves=True):
    about: dict[str, Any] = {
        "data": {
            "name": "multi_asset",
            "start": "1999-01-04",
            "end": "2018-12-31",
            "assets": ASSETS,
            "sha256": "ab" * 32,
            "notes": [NOTE],
        },
        "splits": {"train": ["1999-04-01", "2012-12-31"], "test": ["2016-01-04", "2018-01-01"]},
        "cost": "0.1 % of what is traded",
        "reward": "log_return",
    }
    config = {"experiment": "demo", "agent": {"name": agent, "learning_rate": 0.0003}}
    with RunFolder.create(
        root, "demo", agent, seed, config=config, command="allocgym compare", **about
    ) as run:
        for step in range(1000, 21000, 1000) if curves else ():
            key = "eval/loss" if agent == "lstm" else "eval/sharpe"
            run.log(step, {"train/loss": rng.normal(), key: rng.normal(0.5, 0.2)})
        run.write_backtest(frame)
        run.update(seconds={"fit": 12.3, "test": 0.4})
    return run


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Seven agents, the four learners with three seeds each, one of which failed."""
    root, rng = tmp_path_factory.mktemp("results"), np.random.default_rng(5)
    market = returns_of(rng)
    for agent in (*LEARNERS, *FIXED):
        for seed in range(3 if agent in LEARNERS else 1):
            write_run(root, agent, seed, play(rng, market), rng, curves=agent in LEARNERS)
    broken = RunFolder(root / "demo" / "sac" / "seed_002")
    broken.fail("reward is not finite at step 8123")
    return root


@pytest.fixture(scope="module")
def runs(tree):
    return find_runs([tree])


@pytest.fixture(scope="module")
def frame(runs):
    return summarise(runs, n_resamples=200)


@pytest.fixture(scope="module")
def page(runs, frame):
    return render_report(runs, frame=frame)


class Page(HTMLParser):
    """Elements with their attributes, rows of all tables, and all text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.words, self.styles = [], [], [], []
        self._style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._style = tag == "style"
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._style = False
        if tag == "table":
            self.rows.append([])

    def handle_data(self, data):
        if self._style:
            self.styles.append(data)
            return
        self.words.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def by_hand(backtests):
    """Return, volatility, Sharpe, drawdown, turnover, cost, value; mean of at most three seeds."""
    rows = []
    for frame in backtests:
        wealth = np.concatenate([[1.0], frame["value"]])
        excess = frame["portfolio_return"] - CASH_RATE
        rows.append(
            [
                wealth[-1] ** (252 / T) - 1,
                frame["portfolio_return"].std() * 252**0.5,
                excess.mean() / excess.std() * 252**0.5,
                (1 - wealth / np.maximum.accumulate(wealth)).max(),
                frame["turnover"].mean() * 252,
                frame["cost"].mean() * 252,
                wealth[-1],
            ]
        )
    return np.mean(rows, axis=0)


def test_every_agent_and_its_numbers_are_in_the_table(tree, page):
    table = {row[0]: row for row in Page(page).rows if len(row) == 11}
    assert set(table) == {"agent", *LEARNERS, *FIXED}
    for agent in (*LEARNERS, *FIXED):
        n_seeds = {"sac": 2}.get(agent, 3 if agent in LEARNERS else 1)
        files = [tree / "demo" / agent / f"seed_00{i}/backtest.parquet" for i in range(n_seeds)]
        numbers = by_hand([pd.read_parquet(file) for file in files])
        forms = (".1%", ".1%", ".2f", ".1%", ".1f", ".2%", ".3f")
        expected = [format(x, f).replace("-", MINUS) for x, f in zip(numbers, forms, strict=True)]
        shown = [cell for i, cell in enumerate(table[agent][1:9]) if i != 3]
        assert shown == expected, agent
        assert table[agent][9] == {"sac": "2 of 3"}.get(agent, str(n_seeds))


def test_intervals_and_verdicts_are_those_of_the_summary(frame, page):
    table = {row[0]: row for row in Page(page).rows if len(row) == 11}
    for agent, row in frame.iterrows():
        low, high = (f"{row[key]:.2f}".replace("-", MINUS) for key in ("sharpe_low", "sharpe_high"))
        assert table[agent][4] == f"{low} to {high}"
        told = row["verdict"].removesuffix(" from equal weight").removesuffix(" than equal weight")
        assert table[agent][10].endswith(told)
    ranks = [row[0] for row in Page(page).rows if len(row) == 11][1:]
    assert ranks == list(frame.sort_values("sharpe", ascending=False).index)


def test_what_was_run_and_its_caveats_are_told(page):
    text = Page(page).text
    for words in (
        "1999-01-04 to 2018-12-31",
        "1999-04-01 to 2012-12-31",
        "sp500, treasury, gold, cash",
        "ab" * 32,
        "0.1 % of what is traded",
        "allocgym compare",
        f"numpy {np.__version__}",
        "learning_rate: 0.0003",
        "in excess of the cash rate, annualised with 252 periods a year",
        NOTE,
        f"Test 2016-01-05 to {DAYS[-1]:%Y-%m-%d} {T} periods 7 agents 15 runs, 1 failed",
    ):
        assert words in text, words
    assert text.count(NOTE) == 1


def test_a_failed_run_is_shown_with_its_reason(page):
    rows = [row for row in Page(page).rows if len(row) == 5]
    (failed,) = [row for row in rows if row[0] == "sac" and row[1] == "2"]
    assert failed[2] == "failed: reward is not finite at step 8123"
    assert "Failed: sac, 1 of 3 runs did not finish." in Page(page).text


def test_broken_and_missing_runs_are_shown_and_the_rest_survives(tree, tmp_path):
    root = tmp_path / "results"
    for agent in ("dqn", "lstm", "ppo", "equal_weight"):
        shutil.copytree(tree / "demo" / agent, root / "demo" / agent)
    (root / "demo/ppo/seed_000/backtest.parquet").write_bytes(b"PAR1")
    (root / "demo/dqn/seed_001/manifest.json").unlink()
    for seed in range(3):
        (root / f"demo/lstm/seed_00{seed}/backtest.parquet").unlink()
    runs = find_runs([root])
    page = Page(render_report(runs, frame=summarise(runs, n_resamples=50)))
    status = {(row[0], row[1]): row[2] for row in page.rows if len(row) == 5}
    assert status["ppo", "0"].startswith("failed: backtest.parquet is unreadable")
    assert status["dqn", "1"] == "missing: manifest.json is missing"
    assert status["lstm", "2"] == "failed: backtest.parquet is missing"
    assert status["ppo", "1"] == "finished"
    table = {row[0]: row for row in page.rows if len(row) == 11}
    assert table["lstm"][1:4] == ["n/a"] * 3 and table["lstm"][9:] == ["0 of 3", "no finished run"]
    assert table["ppo"][9] == "2 of 3"


def test_a_page_of_failures_alone_is_still_a_page(tmp_path):
    for seed in range(2):
        with pytest.raises(DataError), RunFolder.create(tmp_path, "demo", "ppo", seed, config={}):
            raise DataError("prices.csv: no rows")
    page = Page(write_report(find_runs([tmp_path]), tmp_path / "deep" / "report.html").read_text())
    assert "prices.csv: no rows" in page.text
    assert "Nothing to compare" in page.text


def test_without_learning_curves_the_section_is_left_out(tree, runs, frame, page):
    assert Page(page).text.count("Learning curves") == 1
    assert "none was logged: buy_and_hold, equal_weight, mean_variance" in Page(page).text
    plain = [run for run in runs if run.agent in FIXED]
    bare = render_report(plain, frame=summarise(plain, n_resamples=50))
    assert "Learning curves" not in Page(bare).text
    assert 'aria-label="Value and drawdown of 3 agents' in bare


def test_learning_curves_are_named_for_what_was_logged(tree, page):
    pictures = [attrs.get("aria-label", "") for attrs in Page(page).all("svg")]
    for agent, key, what in (("ppo", "eval/sharpe", max), ("lstm", "eval/loss", min)):
        files = [tree / "demo" / agent / f"seed_00{i}" / "metrics.jsonl" for i in range(3)]
        best = what(
            json.loads(line)[key] for file in files for line in file.read_text().splitlines()
        )
        name = {"eval/sharpe": "Validation Sharpe ratio", "eval/loss": "Validation loss"}[key]
        expected = f"{name} of {agent} over 20,000 training steps, 3 seeds; best {best:.3g}."
        assert expected.lower() in map(str.lower, pictures)


def test_every_picture_says_what_it_shows(page):
    pictures = [attrs for attrs in Page(page).all("svg") if attrs.get("role") == "img"]
    assert len(pictures) == 2 * 4 + 7 + 4  # four in two cuts, weights, learning curves
    assert all(len(attrs["aria-label"]) > 30 for attrs in pictures)
    weights = [a["aria-label"] for a in pictures if a["aria-label"].startswith("Weights of dqn")]
    assert re.fullmatch(r"Weights of dqn; mean: sp500 \d+%, .*cash \d+%\.", weights[0])
    assert all(
        "aria-hidden" in attrs for attrs in Page(page).all("svg") if attrs.get("role") != "img"
    )
    assert Page(page).all("html") == [{"lang": "en"}]
    assert len(Page(page).all("h1")) == 1 and "<title>demo" in page
    ids = [attrs["id"] for _, attrs in Page(page).elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    known = set(ids)
    for _, attrs in Page(page).elements:
        for key in ("href", "aria-labelledby", "for"):
            assert attrs.get(key, ids[0]).removeprefix("#") in known
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= known


ALLOWED = """html head meta title style body header main footer section h1 h2 h3 p ul li div span b
    i br table thead tbody tr th td figure figcaption fieldset legend label input dl dt dd code pre
    details summary svg g path line use defs clippath rect text"""


def check_harmless(text):
    page = Page(text)
    policy = [a["content"] for a in page.all("meta") if a.get("http-equiv")]
    assert policy and policy[0].startswith("default-src 'none'")
    assert "script" not in policy[0] and "http" not in policy[0]
    assert {tag for tag, _ in page.elements} <= set(ALLOWED.split())
    for _, attrs in page.elements:
        assert not [key for key in attrs if key.startswith("on") or key in ("src", "action")]
        assert attrs.get("href", "#").startswith("#")
        assert "http" not in attrs.get("style", "") and "url(" not in attrs.get("style", "")
    assert "url(" not in "".join(page.styles) and "@import" not in "".join(page.styles)
    return page


def test_the_page_loads_nothing_and_runs_nothing(page):
    check_harmless(page)
    assert "http://" not in page and "https://" not in page


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><svg onload=alert(1)>",
    "{{ 7 * 7 }} $x^2$ &amp; \u202e\u4e2d",
    "</script><script src=//evil.example/x.js></script>",
    "<a href='javascript:alert(1)'>x</a>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "' onmouseover='alert(1)",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<math><mi xlink:href=data:x,y onclick=alert(1)>",
    "</title></head><body onload=alert(1)>",
    "<!--><style>@import '//evil.example/x.css'</style>",
)


def test_hostile_text_is_shown_as_text(tmp_path):
    rng = np.random.default_rng(1)
    assets = [*HOSTILE, "cash"]
    market = returns_of(rng, assets)
    for number, text in enumerate(HOSTILE):
        run = write_run(tmp_path, f"agent{number}", 0, play(rng, market, assets), rng)
        manifest = json.loads((run.path / "manifest.json").read_text())
        manifest |= dict.fromkeys(("agent", "experiment", "command", "cost", "reward"), text)
        manifest["data"] |= {"name": text, "assets": [text], "notes": [text, {"a": text}]}
        manifest["splits"], manifest["versions"] = {"train": text}, {text: text}
        (run.path / "manifest.json").write_text(json.dumps(manifest))
        (run.path / "config.yaml").write_text(json.dumps({text: text}))
    (tmp_path / "demo" / "agent99" / "seed_000").mkdir(parents=True)
    (tmp_path / "demo" / "agent99" / "seed_000" / "manifest.json").write_text(
        json.dumps({"status": "failed", "agent": HOSTILE[0], "error": HOSTILE[1], "seed": "x"})
    )
    runs = find_runs([tmp_path])
    text = render_report(runs, frame=summarise(runs, n_resamples=20))
    page = check_harmless(text)
    for hostile in HOSTILE:
        assert page.text.count(hostile) >= 5, hostile
    assert "49 $x" not in page.text


@pytest.mark.parametrize("key", ["data", "splits", "seconds", "versions"])
def test_a_manifest_of_the_wrong_shape_is_a_failed_run(tree, tmp_path, key):
    shutil.copytree(tree / "demo/ppo/seed_000", tmp_path / "seed_000")
    path = tmp_path / "seed_000" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: ["surprise"]}))
    (run,) = find_runs([tmp_path])
    assert f"`{key}` must be a mapping" in run.error
    assert f"`{key}` must be a mapping" in Page(render_report([run])).text


def test_the_same_files_give_the_same_bytes_in_another_process(tree, page, tmp_path):
    code = (
        "import sys; from experiments.run_dir import find_runs;"
        "from experiments.report import write_report;"
        "from experiments.summary import summarise;"
        "runs = find_runs([sys.argv[1]]);"
        "write_report(runs, sys.argv[2], frame=summarise(runs, n_resamples=200))"
    )
    root = Path(__file__).resolve().parent.parent
    settings = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "error", "-c", code, str(tree), str(tmp_path / "report.html")]
    subprocess.run(command, cwd=tmp_path, env=os.environ | settings, check=True, timeout=300)
    assert (tmp_path / "report.html").read_bytes() == page.encode()


def test_the_page_stays_small(page):
    assert len(page.encode()) < 1_200_000


def test_a_failing_report_leaves_the_old_page(runs, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(SettingError, match="at least one run"):
        write_report([], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_many_assets_are_gathered_but_cash_is_not(tmp_path):
    rng = np.random.default_rng(2)
    assets = [f"stock{i}" for i in range(20)] + ["cash"]
    backtest = play(rng, returns_of(rng, assets), assets)
    write_run(tmp_path, "ppo", 0, backtest, rng, curves=False)
    runs = find_runs([tmp_path])
    drawn = allocations(Exhibit.of(runs, summarise(runs, n_resamples=20)))
    largest = backtest.filter(regex="^target:stock").mean().nlargest(7).index
    named = {name.removeprefix("target:") for name in largest}
    assert set(drawn["legend"]) == {*named, "cash", "13 others"}
    assert len(set(drawn["legend"].values())) == 9


def test_84_agents_can_be_told_apart_by_colour_and_dashes():
    assert len({Mark(index).css for index in range(84)}) == 84
    assert "var(--ink)" in Mark(3, is_reference=True).css


def test_many_agents_are_grouped_folded_away_and_not_all_drawn_at_first():
    rng, n = np.random.default_rng(4), 60
    days = pd.date_range("2020-01-02", periods=n, freq="B", name="date")
    names, runs = ["equal_weight", *(f"agent{i:02}" for i in range(23))], []
    for name in names:
        returns = rng.normal(0.0, 0.01, n)
        columns = {"value": np.cumprod(1 + returns), "portfolio_return": returns}
        columns |= dict.fromkeys(("cost", "turnover", "risk_free", "target:stocks"), np.zeros(n))
        backtest = pd.DataFrame(columns | {"target:cash": np.ones(n)}, index=days)
        runs.append(Run(path=Path("x"), experiment="demo", agent=name, seed=0, backtest=backtest))
    frame = summarise(runs, n_resamples=20)
    text = render_report(runs, frame=frame)
    page = check_harmless(text)
    ratios = {
        run.agent: run.backtest["portfolio_return"].mean() / run.backtest["portfolio_return"].std()
        for run in runs
    }
    ranked = sorted(names, key=lambda name: -ratios[name])
    others = [name for name in ranked if name != "equal_weight"]

    def told(name):
        numbers = frame.loc[name, ["difference", "difference_low", "difference_high"]]
        middle, low, high = (f"{number:+.2f}".replace("-", MINUS) for number in numbers)
        return f"{name} {middle} ({low} to {high})"

    line = f"from equal weight: 23 agents, from {told(others[0])} to {told(others[-1])}. All 23"
    assert f"Not distinguishable {line} {' '.join(map(told, others))} Test 2020" in page.text
    boxes = re.findall(r'id="show-\d+"( checked)?>.*?</svg>([^<]*)</label>', text, re.DOTALL)
    assert [name for _, name in boxes] == ranked
    assert {name for checked, name in boxes if checked} == {"equal_weight", *others[:9]}
    assert "Of 24 agents, the reference and the 9 best are drawn at first" in page.text
    for held, words in (
        (names[:3], f": {names[0]}, {names[1]} and {names[2]}."),
        (ranked[:22], f": all but {ranked[22]} and {ranked[23]}."),
        (names[:12], "(model confidence set)."),
    ):
        frame.attrs["best_set"] = held
        assert [line for line in together(frame) if line.endswith(words)]


def test_few_agents_are_all_named_and_drawn(page):
    assert all("checked" in attrs for attrs in Page(page).all("input"))
    assert "<summary>All" not in page and 'class="dense"' not in page


@pytest.mark.parametrize("case", ["two days", "thirty years", "months", "idle", "ruin"])
def test_unusual_spans_and_paths_are_drawn_without_a_warning(case):
    n, frequency = {"two days": (2, "B"), "thirty years": (7800, "B")}.get(case, (60, "MS"))
    days = pd.date_range("1990-01-02", periods=n, freq=frequency, name="date")
    returns = np.random.default_rng(0).normal(0.0003, 0.01, n)
    if case == "ruin":
        returns[n // 2] = -1.0
    if case == "idle":
        returns[:] = 0.0
    columns = {"value": np.cumprod(1 + returns), "portfolio_return": returns}
    columns |= dict.fromkeys(("cost", "turnover", "risk_free", "target:stocks"), np.zeros(n))
    backtest = pd.DataFrame(columns | {"target:cash": np.ones(n)}, index=days)
    run = Run(path=Path("x"), experiment="demo", agent="ppo", seed=0, backtest=backtest)
    page = Page(render_report([run], frame=summarise([run], n_resamples=20)))
    (row,) = [row for row in page.rows if len(row) == 11 and row[0] == "ppo"]
    assert row[8] == f"{np.prod(1 + returns):.3f}"
    assert "nan" not in "".join(attrs.get("d", "") for attrs in page.all("path"))


def test_thinning_keeps_the_ends_and_the_extremes():
    values = np.random.default_rng(0).normal(size=5000).cumsum()
    kept = thin(values, 600)
    assert len(kept) <= 602
    assert (np.diff(kept) > 0).all()
    assert {0, 4999, values.argmax(), values.argmin()} <= set(kept.tolist())
    assert thin(values[:10], 600).tolist() == list(range(10))


PROBE = """<!doctype html><meta name="color-scheme" content="light dark">
<iframe src="page.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe>
<script>addEventListener("load", () => {
  const inside = frames[0], page = inside.document;
  const style = (node) => inside.getComputedStyle(node);
  const heights = [...page.querySelectorAll("figure text")].map(
    (text) => text.getBoundingClientRect().height).filter((height) => height > 0);
  const hidden = (node) => style(node).display === "none";
  const box = page.querySelector("#show-1"), line = page.querySelector(".agent-1");
  const before = hidden(line);
  box.click();
  document.body.setAttribute("data-probe", JSON.stringify({
    inner: inside.innerWidth, scroll: page.documentElement.scrollWidth,
    toggled: [before, hidden(line), hidden(page.querySelector(".agent-2"))],
    wide: !hidden(page.querySelector(".wide")), narrow: !hidden(page.querySelector(".narrow")),
    smallest: Math.min(...heights), background: style(page.body).backgroundColor}));
});</script>"""


def browse(url, folder, *more):
    """The page's DOM and the browser's messages."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={folder}", "--enable-logging=stderr"]
    command += ["--allow-file-access-from-files", *more, "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_browser_the_page_fits_a_phone_is_dark_on_request_and_says_no_error(page, tmp_path):
    (tmp_path / "page.html").write_text(page)
    found = {}
    for name, width, scheme in (("phone", 390, 1), ("desk", 1280, 0)):
        (tmp_path / "probe.html").write_text(PROBE.replace("WIDTH", str(width)))
        more = f"--blink-settings=preferredColorScheme={scheme}"
        dom, messages = browse((tmp_path / "probe.html").as_uri(), tmp_path / name, more)
        assert messages == []
        quoted = re.search(r'data-probe="([^"]*)"', dom)
        assert quoted is not None
        found[name] = json.loads(quoted[1].replace("&quot;", '"'))
    phone, desk = found["phone"], found["desk"]
    assert (phone["inner"], desk["inner"]) == (390, 1280)
    assert phone["toggled"] == desk["toggled"] == [False, True, False]
    assert phone["scroll"] <= 390 and desk["scroll"] <= 1280
    assert (phone["wide"], phone["narrow"]) == (False, True)
    assert (desk["wide"], desk["narrow"]) == (True, False)
    assert min(phone["smallest"], desk["smallest"]) >= 10  # pixels of a line of text in a chart
    assert phone["background"] == "rgb(246, 247, 249)" and desk["background"] == "rgb(14, 18, 23)"
