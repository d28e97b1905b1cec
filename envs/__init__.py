"""The rules of the game: simulator, costs, constraints, actions, rewards, and Gymnasium shells."""

import gymnasium

from envs.portfolio_env import PortfolioEnv
from envs.vector_env import PortfolioVectorEnv

__all__ = ["PortfolioEnv", "PortfolioVectorEnv"]

gymnasium.register(
    id="allocgym/Portfolio-v0",
    entry_point="envs.portfolio_env:PortfolioEnv",
    vector_entry_point="envs.vector_env:PortfolioVectorEnv",
    kwargs={"market": "multi_asset"},
)
