"""Pictures of an episode, read back by their colours, and a video of one."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd
import pytest
from gymnasium.wrappers import RecordVideo

from envs import PortfolioEnv
from envs.render import CASH, LINE, PALETTE, Film, _ticks
from market import ActionError, Market

CHART = (slice(345, 490), slice(70, 680))  # inside the weights over time


@pytest.fixture
def env(market):
    return PortfolioEnv(market, lookback=5, render_mode="rgb_array")


def share_of(frame, colour):
    """The fraction of the chart of weights that has the colour, to a rounding."""
    near = (np.abs(frame[CHART].astype(int) - colour) <= 2).all(-1)
    return near.mean()


def test_a_frame_is_a_picture(env):
    env.reset()
    frame = env.render()
    assert frame.shape == (540, 960, 3) and frame.dtype == np.uint8
    assert frame.min() < 60 and (frame == 255).all(-1).mean() > 0.5
    env.step([1, 0, 0, 0, 0])
    assert (env.render() != frame).any()


def test_areas_are_the_weights(env):
    env.reset(options={"weights": [0.5, 0.2, 0, 0, 0.3]})
    for _ in range(60):
        env.step([0.5, 0.2, 0, 0, 0.3])
    frame = env.render()
    assert share_of(frame, PALETTE[0]) == pytest.approx(0.5, abs=0.03)
    assert share_of(frame, PALETTE[1]) == pytest.approx(0.2, abs=0.03)
    assert share_of(frame, CASH) == pytest.approx(0.3, abs=0.03)
    assert share_of(frame, PALETTE[2]) == 0.0


def test_the_line_follows_the_value():
    """Value doubles at the half of the episode: right of it the line is higher."""
    prices = np.where(np.arange(101) < 50, 1.0, 2.0)
    frame_ = pd.DataFrame({"A": prices}, pd.bdate_range("2020-01-01", periods=101))
    env = PortfolioEnv(Market.from_prices(frame_), lookback=1, render_mode="rgb_array")
    env.reset(options={"weights": [1, 0]})
    for _ in range(100):
        env.step([1, 0])
    line = (np.abs(env.render()[95:305].astype(int) - LINE) <= 2).all(-1)
    left, right = (np.argwhere(line[:, columns])[:, 0].mean() for columns in (_LEFT, _RIGHT))
    assert left > right + 100


_LEFT, _RIGHT = slice(80, 350), slice(400, 670)


def test_a_new_episode_starts_a_new_film(env):
    env.reset(options={"start": 20})
    first = env.render()
    for _ in range(5):
        env.step([0, 1, 0, 0, 0])
    later = env.render()
    state = env.get_state()
    env.reset(options={"start": 20})
    np.testing.assert_array_equal(env.render(), first)
    env.set_state(state)
    assert (env.render() != later).any()  # the path before the state is not part of it
    assert (env.render() != first).any()


def test_without_an_episode_or_a_mode(market, env):
    with pytest.raises(ActionError, match="reset"):
        env.render()
    silent = PortfolioEnv(market, lookback=5)
    silent.reset()
    assert silent.render() is None


@pytest.mark.parametrize("cash_rate", [0.0, None])
def test_many_assets_long_names_and_ruin(make_market, cash_rate):
    base = make_market(40, risky=33, cash_rate=None)
    prices = pd.DataFrame(base.prices, base.dates, [f"a rather long name {i}" for i in range(33)])
    prices.iloc[20:, 0] = 1e-13
    env = PortfolioEnv(
        Market.from_prices(prices, cash_rate), lookback=1, render_mode="rgb_array", ruin=1e-9
    )
    env.reset()
    terminated = False
    for _ in range(39):
        *_, terminated, _, _ = env.step(np.eye(33 + (cash_rate is not None))[0])
        assert env.render().shape == (540, 960, 3)
        if terminated:
            break
    assert terminated


def test_ticks_are_round_and_within():
    for low, high in ((0.99, 1.01), (0.5, 7.3), (0.0, 1e-3), (1.0, 1e6)):
        ticks = _ticks(low, high)
        assert 2 <= len(ticks) <= 7 and ticks[0] >= low and ticks[-1] <= high
        assert len({f"{tick:.10g}" for tick in np.diff(ticks).round(12)}) == 1


def test_a_video_is_written(tmp_path, market):
    env = RecordVideo(
        gymnasium.make(
            "allocgym/Portfolio-v0",
            market=market,
            lookback=5,
            render_mode="rgb_array",
            episode_length=8,
        ),
        str(tmp_path / "videos"),
        episode_trigger=lambda episode: episode == 0,
        disable_logger=True,
    )
    env.reset(seed=0)
    env.action_space.seed(0)
    over = False
    while not over:
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        over = terminated or truncated
    env.close()
    (video,) = (tmp_path / "videos").glob("*.mp4")
    data = video.read_bytes()
    assert data[4:8] == b"ftyp" and len(data) > 3_000


def test_drawing_loads_with_the_first_frame():
    code = "import envs, sys; print([m for m in ('PIL', 'matplotlib') if m in sys.modules])"
    root = Path(__file__).resolve().parent.parent
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert ran.stdout.decode().strip() == "[]"


def test_a_film_that_starts_midway_shows_the_drawdown_from_the_peak(market):
    whole, part = Film(market), Film(market)
    for film, first in ((whole, 20), (part, 21)):
        film.start(first, 1.25, np.eye(5)[0], peak=2.0)
    whole.add(21, 1.25, np.eye(5)[0])
    np.testing.assert_array_equal(whole.frame()[:80], part.frame()[:80])
    part.start(21, 1.25, np.eye(5)[0])
    assert (whole.frame()[:80] != part.frame()[:80]).any()
