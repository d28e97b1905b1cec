"""A Dirichlet distribution of weights, as stable-baselines3 wants its distributions."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.distributions import Distribution
from torch import Tensor, nn

LEAST_CONCENTRATION = 0.1  # below it densities at the simplex's border explode
LEAST_WEIGHT = 1e-6  # of a sample, so that its logarithm is finite


class DirichletDistribution(Distribution):
    """Weights w with density proportional to prod_i w_i^(c_i - 1).

    c = 0.1 + exp(log_total) * softmax(scores)

    The deterministic action is the mean c / sum(c), which always exists; the mode does not where a
    concentration is below 1.
    """

    distribution: torch.distributions.Dirichlet

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Not asked for: scores come from an `AllocationNetwork`."""
        raise NotImplementedError("scores come from an AllocationNetwork")

    def proba_distribution(self, scores: Tensor, log_total: Tensor) -> DirichletDistribution:
        """Set the parameters: scores (B, N), log_total () or (1,)."""
        spread = log_total.exp() * scores.softmax(-1)
        self.distribution = torch.distributions.Dirichlet(LEAST_CONCENTRATION + spread)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density on the simplex of weights (B, N), (B,)."""
        return self.distribution.log_prob(_inside(actions))

    def entropy(self) -> Tensor:
        """Differential entropy, (B,)."""
        return self.distribution.entropy()

    def sample(self) -> Tensor:
        """Random weights (B, N), all at least about 1e-6."""
        return _inside(self.distribution.sample())

    def mode(self) -> Tensor:
        """The deterministic action: the mean, (B, N)."""
        return self.distribution.mean

    def actions_from_params(
        self, scores: Tensor, log_total: Tensor, deterministic: bool = False
    ) -> Tensor:
        """Weights (B, N)."""
        return self.proba_distribution(scores, log_total).get_actions(deterministic)

    def log_prob_from_params(self, scores: Tensor, log_total: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, N) and their log density (B,)."""
        weights = self.actions_from_params(scores, log_total)
        return weights, self.log_prob(weights)


def _inside(weights: Tensor) -> Tensor:
    """Away from the border, where the density is 0 or infinite, and summing to 1."""
    weights = weights.clamp(min=LEAST_WEIGHT)
    return weights / weights.sum(-1, keepdim=True)
