"""Who decides: `AGENTS`, every allocator by name. A class is imported when it is looked up."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from market.names import unknown_name

_PLACES = {
    "buy_and_hold": "agents.baselines:BuyAndHold",
    "cash": "agents.baselines:Cash",
    "dqn": "agents.dqn:DQNAgent",
    "equal_weight": "agents.baselines:EqualWeight",
    "forecast": "agents.forecast_agent:ForecastAgent",
    "lstm": "agents.forecast_agent:TextbookAgent",
    "mean_variance": "agents.optimisers:MeanVariance",
    "ppo": "agents.ppo:PPOAgent",
    "sac": "agents.sac:SACAgent",
}


class _Registry(Mapping[str, Any]):
    """Name -> class; an unknown name is a SettingError that lists the choices."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Any:
        if name not in self._places:
            raise unknown_name("agent", name, self._places)
        module, _, attribute = self._places[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places))

    def __len__(self) -> int:
        return len(self._places)


AGENTS = _Registry(_PLACES)
