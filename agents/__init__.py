"""Who decides: `AGENTS`, every allocator by name. A class is imported when it is looked up."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from market.names import unknown_name

_PLACES = {
    "a2c": "agents.a2c:A2CAgent",
    "best_constant_mix": "agents.hindsight:BestConstantMix",
    "best_single_asset": "agents.hindsight:BestSingleAsset",
    "black_litterman": "agents.optimisers:BlackLitterman",
    "buy_and_hold": "agents.baselines:BuyAndHold",
    "cash": "agents.baselines:Cash",
    "cross_sectional_momentum": "agents.momentum:CrossSectionalMomentum",
    "dqn": "agents.dqn:DQNAgent",
    "ensemble": "agents.ensembles:Ensemble",
    "equal_weight": "agents.baselines:EqualWeight",
    "exponentiated_gradient": "agents.online:ExponentiatedGradient",
    "factor_blend": "agents.ensembles_forecasts:FactorBlend",
    "forecast": "agents.forecast_agent:ForecastAgent",
    "hierarchical_risk_parity": "agents.risk_based:HierarchicalRiskParity",
    "index": "agents.baselines:Index",
    "inverse_volatility": "agents.risk_based:InverseVolatility",
    "lstm": "agents.forecast_agent:TextbookAgent",
    "maximum_diversification": "agents.risk_based:MaximumDiversification",
    "maximum_sharpe": "agents.optimisers:MaximumSharpe",
    "mean_variance": "agents.optimisers:MeanVariance",
    "minimum_cvar": "agents.risk_based:MinimumCVaR",
    "minimum_variance": "agents.risk_based:MinimumVariance",
    "moving_average_reversion": "agents.online:MovingAverageReversion",
    "newton_step": "agents.online:NewtonStep",
    "passive_aggressive": "agents.online:PassiveAggressive",
    "policy_gradient": "agents.policy_gradient:PolicyGradientAgent",
    "ppo": "agents.ppo:PPOAgent",
    "qrdqn": "agents.qrdqn:QRDQNAgent",
    "recurrent_ppo": "agents.recurrent_ppo:RecurrentPPOAgent",
    "regime_switch": "agents.ensembles_regime:RegimeSwitch",
    "risk_parity": "agents.risk_based:RiskParity",
    "sac": "agents.sac:SACAgent",
    "sixty_forty": "agents.baselines:SixtyForty",
    "stacking": "agents.ensembles_forecasts:Stacking",
    "td3": "agents.td3:TD3Agent",
    "time_series_momentum": "agents.momentum:TimeSeriesMomentum",
    "tqc": "agents.tqc:TQCAgent",
    "uniform_mix": "agents.online:UniformMix",
    "universal": "agents.online:Universal",
    "volatility_managed": "agents.momentum:VolatilityManaged",
}

ALSO_CALLED = {
    "1/n": "equal_weight",
    "60/40": "sixty_forty",
    "bcrp": "best_constant_mix",
    "cover": "universal",
    "cvar": "minimum_cvar",
    "eg": "exponentiated_gradient",
    "erc": "risk_parity",
    "gmv": "minimum_variance",
    "hrp": "hierarchical_risk_parity",
    "markowitz": "mean_variance",
    "olmar": "moving_average_reversion",
    "ons": "newton_step",
    "pamr": "passive_aggressive",
    "tangency": "maximum_sharpe",
    "ucrp": "uniform_mix",
}  # papers' names, which an unknown name is answered with


class _Registry(Mapping[str, Any]):
    """Name -> class; an unknown name is a SettingError that lists the choices."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Any:
        if name not in self._places:
            raise unknown_name("agent", name, self._places, ALSO_CALLED)
        module, _, attribute = self._places[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def name_of(self, kind: type) -> str:
        """The name of a class; `module:Class` where it has none."""
        place = f"{kind.__module__}:{kind.__qualname__}"
        return next((name for name, known in self._places.items() if known == place), place)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places))

    def __len__(self) -> int:
        return len(self._places)


AGENTS = _Registry(_PLACES)


def name_of(kind: type) -> str:
    """What errors call an agent's class: the name it is registered under, else its own."""
    place = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, at in _PLACES.items() if at == place), kind.__name__)
