"""Networks: two forms of one function, what they may see, symmetry under permutation of assets."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from agents import encoder_base
from agents.fused import causal_convolution, gathered_hidden
from agents.networks import (
    ENCODERS,
    MIXINGS,
    AllocationNetwork,
    Encoder,
    NetworkSettings,
    encode_at,
    encode_rows,
    make_encoder,
)
from market.errors import SettingError

L, T, N, F, G, H = 12, 40, 3, 4, 2, 16
FINITE = [name for name, kind in ENCODERS.items() if kind.finite_memory]
VARIANTS = [(name, norm) for name in ENCODERS for norm in ("none", "layer")]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(**changes) -> NetworkSettings:
    return NetworkSettings(**({"width": H, "lookback": L} | changes))


def windows_at(panel: Tensor, ends: Tensor, lookback: int = L) -> Tensor:
    return torch.stack([panel[end - lookback + 1 : end + 1] for end in ends.tolist()])


def gradients(module: torch.nn.Module, output: Tensor, *others: Tensor) -> list[Tensor]:
    """Gradients of a fixed random projection of an output."""
    loss = (output * draw(*output.shape, seed=9)).sum()
    return list(torch.autograd.grad(loss, [*module.parameters(), *others], allow_unused=True))


def assert_same(left: list[Tensor], right: list[Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            scale = max(1.0, float(b.abs().max()))
            torch.testing.assert_close(a / scale, b / scale, rtol=0.0, atol=1e-5)


def squares(outputs: tuple[Tensor, Tensor]) -> Tensor:
    return outputs[0].square().sum() + outputs[1].square().sum()


# --- operations ---


@pytest.mark.parametrize(("channels", "kernel", "dilation"), [(5, 3, 2), (40, 2, 3), (3, 1, 1)])
@pytest.mark.parametrize("activate", [False, True])
def test_convolution_equals_that_of_torch(monkeypatch, channels, kernel, dilation, activate):
    monkeypatch.setattr("agents.fused._pieces", lambda n, *_: [slice(0, 4), slice(4, n)])
    x = draw(14, N, channels).double().requires_grad_()
    weight = draw(kernel * channels, 6, seed=1).double().requires_grad_()
    bias = draw(6, seed=2).double().requires_grad_()
    ours = causal_convolution(x, weight, bias, kernel=kernel, dilation=dilation, activate=activate)
    filters = weight.view(kernel, channels, 6).permute(2, 1, 0)
    theirs = functional.conv1d(x.permute(1, 2, 0), filters, bias, dilation=dilation)
    theirs = (functional.relu(theirs) if activate else theirs).permute(2, 0, 1)
    torch.testing.assert_close(ours, theirs)
    seen = draw(*ours.shape, seed=3).double()
    for a, b in zip(
        torch.autograd.grad((ours * seen).sum(), (x, weight, bias)),
        torch.autograd.grad((theirs * seen).sum(), (x, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("indexed", [True, False])
def test_gathered_hidden_equals_plain_operations(monkeypatch, indexed):
    monkeypatch.setattr("agents.fused._pieces", lambda n, *_: [slice(0, 3), slice(3, n)])
    index = torch.tensor([2, 0, 2, 3, 1]) if indexed else None
    shapes = ((4 if indexed else 5, N, H), (5, N, 2), (2, H), (H,))
    leaves = [draw(*s, seed=i).double().requires_grad_() for i, s in enumerate(shapes)]
    table, inputs, weight, readout = leaves
    hidden = torch.relu((table if index is None else table[index]) + inputs @ weight)
    expected = (hidden @ readout, hidden.mean(1))
    got = gathered_hidden(table, inputs, weight, readout, index)
    torch.testing.assert_close(got, expected)
    for a, b in zip(
        torch.autograd.grad(squares(got), leaves),
        torch.autograd.grad(squares(expected), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


# --- encoders ---


@pytest.mark.parametrize(("name", "norm"), VARIANTS)
def test_panel_form_equals_window_form(name, norm):
    encoder = make_encoder(F, small(encoder=name, normalisation=norm))
    panel = draw(T, N, F).requires_grad_()
    windows = windows_at(panel, torch.arange(L - 1, T))
    by_window, by_panel = encoder(windows), encoder.encode_panel(panel)
    assert by_panel.shape == (T - L + 1, N, H)
    torch.testing.assert_close(by_panel, by_window, rtol=0.0, atol=1e-5)
    assert float(by_panel.detach().std(0).mean()) > 0.01  # not a constant
    assert_same(gradients(encoder, by_panel, panel), gradients(encoder, by_window, panel))


@pytest.mark.parametrize(
    ("name", "lookback", "depth"),
    [
        *[("cnn", 60, 2), ("cnn", 13, 3), ("cnn", 7, 1), ("cnn", 8, 3), ("fnn", 1, 3)],
        *[("transformer", 60, 2), ("transformer", 13, 3), ("transformer", 1, 2), ("fnn", 30, 1)],
    ],
)
def test_forms_agree_for_other_sizes(name, lookback, depth):
    settings = NetworkSettings(encoder=name, width=10, lookback=lookback, depth=depth)
    encoder = make_encoder(F, settings)
    panel = draw(lookback + 70, 2, F)
    ends = torch.arange(lookback - 1, len(panel))
    expected = encoder.encode(windows_at(panel, ends, lookback))
    torch.testing.assert_close(encoder.encode_panel(panel), expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_embedding_sees_exactly_its_window(name):
    encoder = make_encoder(F, small(encoder=name))
    panel, other = draw(T, N, F), draw(T, N, F, seed=1)
    end, row = 20, 20 - (L - 1)
    base = encoder.encode_panel(panel)
    outside = panel.clone()
    outside[end + 1 :], outside[: end - L + 1] = other[end + 1 :], other[: end - L + 1]
    changed = encoder.encode_panel(outside)
    torch.testing.assert_close(changed[row], base[row], rtol=0.0, atol=1e-6)
    assert not torch.allclose(changed[row + 1], base[row + 1], atol=1e-4)
    panel.requires_grad_()
    embedding = encoder.encode_panel(panel)[row]
    reach = torch.autograd.grad((embedding * draw(N, H)).sum(), panel)[0].abs().sum((1, 2)) > 0
    assert reach.nonzero().flatten().tolist() == list(range(end - L + 1, end + 1))


@pytest.mark.parametrize("name", ENCODERS)
def test_assets_are_encoded_alone_and_alike(name):
    encoder = make_encoder(F, small(encoder=name))
    panel, order = draw(T, 5, F), torch.tensor([3, 1, 4, 0, 2])
    base = encoder.encode_panel(panel)
    torch.testing.assert_close(
        encoder.encode_panel(panel[:, order]), base[:, order], rtol=0.0, atol=1e-6
    )
    torch.testing.assert_close(encoder.encode_panel(panel[:, :1]), base[:, :1], rtol=0.0, atol=1e-6)


ENDS = {
    "dense": torch.randint(L - 1, T, (200,), generator=torch.Generator().manual_seed(3)),
    "sparse": torch.tensor([39, 11, 39]),
    "single": torch.tensor([17]),
}


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("name", ENCODERS)
def test_encode_at_equals_gathered_windows(name, ends):
    encoder = make_encoder(F, small(encoder=name))
    panel = draw(T, N, F).requires_grad_()
    expected = encoder.encode(windows_at(panel, ENDS[ends]))
    got = encode_at(encoder, panel, ENDS[ends])
    torch.testing.assert_close(got, expected, rtol=0.0, atol=1e-5)
    assert_same(gradients(encoder, got, panel), gradients(encoder, expected, panel))


@pytest.mark.parametrize("name", ENCODERS)
def test_encode_rows_takes_the_form_with_less_work(monkeypatch, name):
    encoder = make_encoder(F, small(encoder=name))
    panel = draw(400, N, F)
    forms: list[str] = []
    for form in ("encode_panel", "encode_ends"):
        true = getattr(encoder, form)

        def spy(*args, true=true, form=form):
            forms.append(form)
            return true(*args)

        monkeypatch.setattr(encoder, form, spy)
    encode_rows(encoder, panel, torch.arange(L - 1, 400))
    assert forms[0] == "encode_panel"
    forms.clear()
    table, index = encode_rows(encoder, panel, torch.tensor([399, L - 1, 399]))
    assert forms == ["encode_ends"]
    assert len(table) == 2  # each distinct window once
    assert index.tolist() == [1, 0, 1]


def multiply_adds(function) -> int:
    """Multiply-adds of matrix products, as counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["fnn", "cnn"])
def test_counted_work_is_what_torch_counts(name):
    encoder = make_encoder(F, small(encoder=name, depth=3))
    windows, panel = draw(5, L, N, F), draw(T, N, F)
    assert multiply_adds(lambda: encoder.encode(windows)) == 5 * N * encoder.window_work()
    work = encoder.panel_work(T - L + 1)
    assert multiply_adds(lambda: encoder.encode_panel(panel)) == N * work


@pytest.mark.parametrize("ends", [[L - 2], [T], [20, T]])
def test_windows_outside_the_panel_are_refused(ends):
    encoder = make_encoder(F, small())
    with pytest.raises(ValueError, match=rf"end_rows must be in {L - 1} .. {T - 1}"):
        encode_at(encoder, draw(T, N, F), torch.tensor(ends))


@pytest.mark.parametrize("name", ["lstm", "transformer", "cnn"])
def test_work_in_recomputed_pieces_changes_nothing(monkeypatch, name):
    encoder = make_encoder(F, small(encoder=name))
    panel = draw(T, N, F).requires_grad_()
    ends = torch.arange(L - 1, T)

    def results() -> tuple[Tensor, list[Tensor]]:
        got = torch.cat([encoder.encode_panel(panel), encoder.encode_ends(panel, ends)])
        return got, gradients(encoder, got, panel)

    whole, whole_gradients = results()
    monkeypatch.setattr(encoder_base, "_PIECE", 5_000)
    monkeypatch.setattr(encoder_base, "_KEPT", 1)
    pieces, pieces_gradients = results()
    torch.testing.assert_close(pieces, whole, rtol=0.0, atol=1e-6)
    assert_same(pieces_gradients, whole_gradients)


@pytest.mark.parametrize("name", ENCODERS)
def test_dropout_acts_in_training_only(name):
    encoder = make_encoder(F, small(encoder=name, dropout=0.5))
    panel = draw(T, N, F)
    assert not torch.equal(encoder.encode_panel(panel), encoder.encode_panel(panel))
    encoder.eval()
    assert torch.equal(encoder.encode_panel(panel), encoder.encode_panel(panel))
    windows = windows_at(panel, torch.arange(L - 1, T))
    torch.testing.assert_close(encoder.encode_panel(panel), encoder(windows), rtol=0.0, atol=1e-5)


# --- allocation network ---


def batch(n_assets: int = N, size: int = 6):
    panel, context = draw(T, n_assets, F), draw(T, G, seed=1)
    ends = torch.randint(L - 1, T, (size,), generator=torch.Generator().manual_seed(2))
    weights = torch.softmax(draw(size, n_assets, seed=3), -1)
    cash = torch.arange(n_assets) == n_assets - 1
    return panel, context, ends, weights, cash


def lively(network: AllocationNetwork) -> AllocationNetwork:
    """The near-zero read-outs of a fresh network would hide differences; fill them."""
    with torch.no_grad():
        network.head.readout.copy_(draw(H, seed=5))
        network.head.skip.copy_(draw(*network.head.skip.shape, seed=6))
    return network


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("name", ["cnn", "gru", "transformer"])
def test_network_on_rows_equals_network_on_windows(name, mixing):
    network = lively(AllocationNetwork(F, G, small(encoder=name, mixing=mixing)))
    panel, context, ends, weights, cash = batch()
    weights.requires_grad_()
    full = network(windows_at(panel, ends), weights, windows_at(context, ends), cash)
    table, index = network.table_at(panel, ends, context, cash)
    fast = network.decide(table, weights, index)
    all_rows = network.table_panel(panel, context, cash)
    rollout = network.decide(all_rows, weights, ends - (L - 1))
    assert full[0].shape == (6, N)
    assert full[1].shape == (6,)
    torch.testing.assert_close(fast, full, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(rollout, full, rtol=0.0, atol=1e-5)

    def one(output):
        return torch.cat([output[0], output[1].unsqueeze(-1)], -1)

    slopes = gradients(network, one(full), weights)
    assert all(slope is not None for slope in slopes)
    assert_same(gradients(network, one(fast), weights), slopes)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_permuting_assets_permutes_scores(mixing):
    network = lively(AllocationNetwork(F, G, small(mixing=mixing)))
    panel, context, ends, weights, cash = batch(n_assets=5)
    windows, past = windows_at(panel, ends), windows_at(context, ends)
    order = torch.tensor([4, 2, 0, 1, 3])
    scores, values = network(windows, weights, past, cash)
    moved, same = network(windows[:, :, order], weights[:, order], past, cash[order])
    torch.testing.assert_close(moved, scores[:, order], rtol=0.0, atol=1e-5)
    torch.testing.assert_close(same, values, rtol=0.0, atol=1e-5)
    stayed, _ = network(windows[:, :, order], weights[:, order], past, cash)
    assert not torch.allclose(stayed, scores[:, order], atol=1e-3)  # the cash flag counts


@pytest.mark.parametrize("mixing", ["pooled", "attention"])
def test_mixing_lets_assets_see_each_other(mixing):
    windows, weights = draw(4, L, N, F), torch.full((4, N), 1 / N)
    moved = windows.clone()
    moved[:, :, 0] += 1.0

    def shift(kind: str) -> float:
        network = lively(AllocationNetwork(F, settings=small(mixing=kind)))
        difference = network(moved, weights)[0] - network(windows, weights)[0]
        return float(difference.detach()[:, 1:].abs().max())

    assert shift("none") < 1e-6
    assert shift(mixing) > 1e-3


@pytest.mark.parametrize("mixing", MIXINGS)
def test_one_network_serves_any_number_of_assets(mixing):
    network = AllocationNetwork(F, G, small(mixing=mixing))
    for n_assets in (1, 2, 7):
        panel, context, ends, weights, cash = batch(n_assets)
        table, index = network.table_at(panel, ends, context, cash)
        scores, values = network.decide(table, weights, index)
        assert scores.shape == (6, n_assets)
        assert values.shape == (6,)


def test_twin_assets_score_alike():
    network = lively(AllocationNetwork(F, settings=small()))
    windows = draw(4, L, 1, F).expand(4, L, 3, F)
    scores, _ = network(windows, torch.full((4, 3), 1 / 3))
    torch.testing.assert_close(scores, scores[:, :1].expand(4, 3))


def test_fresh_policy_is_near_equal_weights_and_holding_can_be_expressed():
    network = AllocationNetwork(F, settings=small())
    windows, weights = draw(8, L, N, F), torch.tensor([[0.7, 0.2, 0.1]]).expand(8, N)
    policy = torch.softmax(network(windows, weights)[0], -1)
    torch.testing.assert_close(policy, torch.full((8, N), 1 / N), rtol=0.0, atol=0.05)
    with torch.no_grad():
        network.head.readout.zero_()
        network.head.skip.copy_(torch.tensor([0.0, 4.6151205]))  # log(101)
    held = torch.softmax(network(windows, weights)[0], -1)
    torch.testing.assert_close(held, (weights + 0.01) / 1.03)


def test_a_critic_takes_several_numbers_per_asset():
    network = AllocationNetwork(F, settings=small(), n_inputs=2)
    windows, weights, action = draw(4, L, N, F), torch.rand(4, N), torch.rand(4, N)
    action.requires_grad_()
    _, values = network(windows, torch.stack([weights, action], -1))
    slope = torch.autograd.grad(values.sum(), action)[0]
    with torch.no_grad():
        _, moved = network(windows, torch.stack([weights, action + 1e-3 * slope], -1))
    assert bool((moved > values).all())


def test_context_must_match_what_the_network_was_built_for():
    windows, weights = draw(2, L, N, F), torch.full((2, N), 1 / N)
    with pytest.raises(ValueError, match="without context"):
        AllocationNetwork(F, 0, small())(windows, weights, draw(2, L, G))
    with pytest.raises(ValueError, match="with context"):
        AllocationNetwork(F, G, small())(windows, weights)


@pytest.mark.parametrize("name", ENCODERS)
def test_seed_decides_parameters_and_leaves_the_global_state(name):
    state = torch.random.get_rng_state()

    def parameters(seed: int) -> Tensor:
        network = AllocationNetwork(F, G, small(encoder=name), seed=seed)
        return torch.nn.utils.parameters_to_vector(network.parameters())

    first = parameters(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)  # whatever the global generator does
    assert torch.equal(parameters(1), first)
    assert not torch.equal(parameters(2), first)
    torch.random.set_rng_state(state)


def test_training_twice_gives_the_same_bits():
    def train() -> Tensor:
        network = AllocationNetwork(F, G, small(), seed=3)
        panel, context, ends, weights, cash = batch(size=64)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(3):
            table, index = network.table_at(panel, ends, context, cash)
            scores, values = network.decide(table, weights, index)
            optimiser.zero_grad()
            (scores.square().mean() + (values - 1.0).square().mean()).backward()
            optimiser.step()
        return torch.nn.utils.parameters_to_vector(network.parameters())

    assert torch.equal(train(), train())


@pytest.mark.parametrize("name", ENCODERS)
def test_learns_which_asset_has_the_larger_sum(name):
    """A few steps of Adam on a task that needs the whole window, through `encode_at`."""
    settings = small(encoder=name, normalisation="layer", mixing="none")
    network = AllocationNetwork(1, settings=settings, seed=1)
    panel = draw(200, 2, 1)
    ends = torch.arange(L - 1, 200)
    best = windows_at(panel, ends).sum((1, 3)).argmax(-1)
    weights = torch.full((len(ends), 2), 0.5)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        table, index = network.table_at(panel, ends)
        scores, _ = network.decide(table, weights, index)
        optimiser.zero_grad()
        functional.cross_entropy(scores, best).backward()
        optimiser.step()
    assert float((scores.argmax(-1) == best).float().mean()) > 0.9


@pytest.mark.parametrize("name", ENCODERS)
def test_safetensors_round_trip(tmp_path, name):
    settings = small(encoder=name, mixing="attention", normalisation="layer")
    network = lively(AllocationNetwork(F, G, settings, seed=1))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    loaded = AllocationNetwork(F, G, settings, seed=2)
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    panel, context, ends, weights, cash = batch()
    arguments = (windows_at(panel, ends), weights, windows_at(context, ends), cash)
    assert torch.equal(loaded(*arguments)[0], network(*arguments)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "gpt"}, "encoder must be one of fnn, cnn"),
        ({"mixing": "blend"}, "mixing must be one of none, pooled, attention, got 'blend'"),
        ({"normalisation": "batch"}, "normalisation must be one of none, layer, got 'batch'"),
        ({"width": 0}, "width must be a whole number >= 1, got 0"),
        ({"depth": 1.5}, "depth must be a whole number >= 1, got 1.5"),
        ({"lookback": True}, "lookback must be a whole number >= 1, got True"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"encoder": "cnn", "lookback": 7, "depth": 3}, "depth of encoder cnn must be at most"),
        ({"encoder": "transformer", "width": 15}, "width of encoder transformer must be even"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(SettingError, match=message):
        NetworkSettings(**change)


def test_registry_lists_encoders():
    assert list(ENCODERS) == ["fnn", "cnn", "rnn", "gru", "lstm", "transformer"]
    assert FINITE == ["fnn", "cnn", "transformer"]
    assert all(issubclass(kind, Encoder) for kind in ENCODERS.values())
