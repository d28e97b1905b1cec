"""All forecasters by name. Each gives expected returns; any goes with any allocation rule."""

from __future__ import annotations

from agents.forecast_base import Forecaster
from agents.forecast_linear import HistoricalMean, Linear, Ridge
from agents.forecast_networks import (
    CNNForecaster,
    FNNForecaster,
    GRUForecaster,
    LSTMForecaster,
    RNNForecaster,
    TransformerForecaster,
)
from agents.forecast_training import one_thread, reproducible
from agents.target_forecaster import TargetForecaster
from agents.textbook_lstm import TextbookLSTM, TextbookLSTMSettings

__all__ = [
    "FORECASTERS",
    "Forecaster",
    "HistoricalMean",
    "TargetForecaster",
    "TextbookLSTM",
    "TextbookLSTMSettings",
    "one_thread",
    "reproducible",
]

FORECASTERS: dict[str, type[Forecaster]] = {
    "mean": HistoricalMean,
    "linear": Linear,
    "ridge": Ridge,
    "fnn": FNNForecaster,
    "cnn": CNNForecaster,
    "rnn": RNNForecaster,
    "gru": GRUForecaster,
    "lstm": LSTMForecaster,
    "transformer": TransformerForecaster,
    "textbook_lstm": TextbookLSTM,
}
