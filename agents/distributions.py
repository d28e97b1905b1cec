"""Distributions of scores and of weights, as stable-baselines3 wants its distributions."""

from __future__ import annotations

import math
from typing import Any

import torch
from stable_baselines3.common.distributions import Distribution
from torch import Tensor, nn

LEAST_CONCENTRATION = 0.1  # below it densities at the simplex's border explode
LEAST_WEIGHT = 1e-6  # of a sample, so that its logarithm is finite


class _OfScores(Distribution):
    """What both have in common: scores come from an `AllocationNetwork`, not from a layer here."""

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Not asked for."""
        raise NotImplementedError("scores come from an AllocationNetwork")

    def actions_from_params(
        self, scores: Tensor, parameter: Tensor, deterministic: bool = False
    ) -> Tensor:
        """Actions (B, N)."""
        return self.proba_distribution(scores, parameter).get_actions(deterministic)

    def log_prob_from_params(self, scores: Tensor, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, N) and their log density (B,)."""
        actions = self.actions_from_params(scores, parameter)
        return actions, self.log_prob(actions)


class SharedGaussian(_OfScores):
    """Independent normal scores a around their means m with one standard deviation s for all.

    log p(a) = -|a - m|^2 / (2 s^2) - N (log s + log(2 pi) / 2)

    As stable-baselines3's diagonal Gaussian, in a third of the operations. The deterministic action
    is the mean.
    """

    mean: Tensor
    log_std: Tensor

    def proba_distribution(self, scores: Tensor, log_std: Tensor) -> SharedGaussian:
        """Set the parameters: means (B, N), log_std () or (1,)."""
        self.mean, self.log_std = scores, log_std
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density of scores (B, N), (B,)."""
        squares = (actions - self.mean).square().sum(-1)
        each = self.log_std + 0.5 * math.log(2.0 * math.pi)
        return -0.5 * (-2.0 * self.log_std).exp() * squares - self.mean.shape[-1] * each

    def entropy(self) -> Tensor:
        """Differential entropy, (B,)."""
        each = self.log_std + 0.5 * math.log(2.0 * math.pi * math.e)
        return (self.mean.shape[-1] * each).expand(len(self.mean))

    def sample(self) -> Tensor:
        """Random scores (B, N)."""
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean)

    def mode(self) -> Tensor:
        """The deterministic action: the mean, (B, N)."""
        return self.mean


class DirichletDistribution(_OfScores):
    """Weights w with density proportional to prod_i w_i^(c_i - 1).

    c = 0.1 + exp(log_total) * softmax(scores)

    The deterministic action is the mean c / sum(c), which always exists; the mode does not where a
    concentration is below 1.
    """

    distribution: torch.distributions.Dirichlet

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


def _inside(weights: Tensor) -> Tensor:
    """Away from the border, where the density is 0 or infinite, and summing to 1."""
    weights = weights.clamp(min=LEAST_WEIGHT)
    return weights / weights.sum(-1, keepdim=True)
