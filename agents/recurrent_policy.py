"""The policy of recurrent PPO: the LSTM of an `AllocationNetwork`, stepped a day at a time.

    features (N, F) of the day, state -> LSTM, one for all assets -> mixing -> head with the weights

The state sb3-contrib stores is that of all assets side by side, and of the context's own LSTM where
there is context: (layers, environments, N H), or (layers, environments, (N + 1) H). Actor and value
share it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from torch import Tensor

from agents.encoders import LSTM
from agents.panel_network import check_finite
from agents.policies import ActorCritic, Observation, rows_of

State = tuple[Tensor, Tensor]  # hidden and cell, (layers, S, width) each


class _Sizes(NamedTuple):
    """What the algorithm asks of the actor's LSTM."""

    num_layers: int
    hidden_size: int


class RecurrentActorCritic(ActorCritic, RecurrentActorCriticPolicy):  # type: ignore[misc]
    """`ActorCritic` whose windows grow with the episode; see this module's head."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        series = self.shape.n_assets + (self.shape.n_context > 0)
        settings = self.network_settings
        self.lstm_actor = _Sizes(settings.depth, series * settings.width)  # type: ignore[assignment]

    def forward(  # type: ignore[override]
        self,
        obs: Observation,
        lstm_states: RNNStates,
        episode_starts: Tensor,
        deterministic: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, RNNStates]:
        """Actions (B, N), values (B, 1), log probabilities (B,) and the states that follow."""
        distribution, values, state = self._step(obs, lstm_states.pi, episode_starts)
        actions = distribution.get_actions(deterministic)
        return actions, values, distribution.log_prob(actions), RNNStates(state, state)

    def evaluate_actions(  # type: ignore[override]
        self, obs: Observation, actions: Tensor, lstm_states: RNNStates, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values (B, 1), log probabilities and entropies (B,) of sequences side by side."""
        distribution, values, _ = self._step(obs, lstm_states.pi, episode_starts)
        return values, distribution.log_prob(actions), distribution.entropy()

    def predict_values(  # type: ignore[override]
        self, obs: Observation, lstm_states: State, episode_starts: Tensor
    ) -> Tensor:
        """Values (B, 1)."""
        return self._step(obs, lstm_states, episode_starts)[1]

    def _predict(  # type: ignore[override]
        self, observation: Observation, deterministic: bool = False
    ) -> Tensor:
        """Actions from the last `lookback` days, replayed from a state of zero."""
        return self._heads(observation)[0].get_actions(deterministic)

    def _step(
        self, obs: Observation, states: tuple[Tensor, ...], episode_starts: Tensor
    ) -> tuple[Distribution, Tensor, State]:
        """Distribution and values (B, 1) of S sequences, one after the other, and their states.

        Sequences of a minibatch are cut where episodes start, so only their first states are reset.
        """
        n_sequences = states[0].shape[1]
        fresh = episode_starts.view(n_sequences, -1)[:, 0]
        hidden, cell = ((1.0 - fresh)[:, None] * state for state in states)
        table, state = self._table(rows_of(obs).view(n_sequences, -1), (hidden, cell))
        scores, values = self.parted(*self.panel.network.decide(table, obs["weights"]))
        check_finite(scores.sum() + values.sum())
        return self.distribute(scores), values.unsqueeze(1), state

    def _table(self, rows: Tensor, state: State) -> tuple[Tensor, State]:
        """Rows for the head (S * days, N, H), from rows of the market (S, days)."""
        panel, network = self.panel.panel, self.panel.network
        assert panel is not None, "show() a market first"
        own = self.shape.n_assets * self.network_settings.width
        first = tuple(part[..., :own] for part in state)
        x, after = _run(network.encoder, panel.features[rows], first)
        shared, context = None, network.context_encoder
        if context is not None and panel.context is not None:
            rest = tuple(part[..., own:] for part in state)
            shared, more = _run(context, panel.context[rows].unsqueeze(2), rest)
            after = tuple(torch.cat(pair, -1) for pair in zip(after, more, strict=True))
        hidden, cell = after
        return network.mix(x, shared, panel.cash), (hidden, cell)


def _run(
    encoder: Any, days: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Embeddings (S * days, n, H) of n series (S, days, n, F), and their states afterwards."""
    assert isinstance(encoder, LSTM)
    n_sequences, n_days, n_series, n_features = days.shape
    layers, width = encoder.network.num_layers, encoder.width
    series = days.transpose(0, 1).reshape(n_days, n_sequences * n_series, n_features)
    before = tuple(part.reshape(layers, n_sequences * n_series, width) for part in state)
    out, after = encoder.network(series, before)
    out = out.view(n_days, n_sequences, n_series, width).transpose(0, 1).flatten(0, 1)
    return encoder.finish(out), tuple(part.view(layers, n_sequences, -1) for part in after)
