"""The loop in which a network learns."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_xray.pipelines.recipes.lab import Lab
from diffusion_xray.pipelines.recipes.training.loop import Training
from diffusion_xray.pipelines.recipes.training.unet import UNet, new_unet
from diffusion_xray.tracer import Trace, Tracer, open_trace

STEPS, EVERY, ALSO = 9, 4, (2,)
TRACED = [0, 2, 4, 8]


def pairs() -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures and labels without end."""
    random = torch.Generator().manual_seed(0)
    while True:
        yield torch.rand(16, 1, 8, 8, generator=random), torch.zeros(16)


def trained(lab: Lab, *, traced: bool) -> Training[UNet]:
    """A network that has learned for some steps, traced or not."""
    training = Training(new_unet(8, 8), steps=STEPS, rate=1e-2, every=EVERY, also=ALSO)

    def run(tracer: Tracer | None) -> None:
        for pictures, _ in training.steps(lab, pairs(), tracer):
            drawn = training(pictures)
            training.learn(F.mse_loss(drawn, pictures))
            training.record(drawn=drawn)

    if traced:
        with lab.trace({"unet": training.traced}, capture="all") as tracer:
            run(tracer)
    else:
        run(None)
    return training


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Where the traced training is."""
    return Lab(tmp_path_factory.mktemp("loop"), quiet=True)


@pytest.fixture(scope="module")
def training(lab: Lab) -> Training[UNet]:
    """A traced training."""
    return trained(lab, traced=True)


@pytest.fixture(scope="module")
def trace(lab: Lab, training: Training[UNet]) -> Trace:
    """What was traced of it."""
    return open_trace(lab.traces[0])


def test_tracing_does_not_change_training(lab: Lab, training: Training[UNet]) -> None:
    """Losses, weights and their average are the same to the bit with and without a tracer."""
    alone = trained(lab, traced=False)
    assert training.losses == alone.losses
    for ours, theirs in zip(
        itertools.chain(training.network.parameters(), training.average.parameters()),
        itertools.chain(alone.network.parameters(), alone.average.parameters()),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_every_nth_step_is_traced(trace: Trace, training: Training[UNet]) -> None:
    """The trace has the steps asked for and the last, with their numbers as timesteps, and their losses."""
    assert trace.timestep.tolist() == TRACED
    losses = trace["records.loss"]["output"].values
    np.testing.assert_allclose(losses, [training.losses[step] for step in TRACED], rtol=1e-6)
    assert trace["unet.leave"]["output"].shape == (len(TRACED), 16, 8, 8, 8)
    assert trace["records.drawn"]["output"].shape == (len(TRACED), 16, 1, 8, 8)


def test_gradients_and_weights_are_those_of_the_loss(trace: Trace) -> None:
    """For each layer: the weights that the loss is of, and the gradient at them, found here once more."""
    network = new_unet(8, 8)
    pictures = next(pairs())[0]
    F.mse_loss(network(pictures), pictures).backward()  # type: ignore[no-untyped-call]
    layers = [name for name, module in network.named_modules() if isinstance(getattr(module, "weight", None), Tensor)]
    assert len(layers) > 20
    for name in layers:
        weight = network.get_parameter(f"{name}.weight")
        assert weight.grad is not None
        np.testing.assert_array_equal(trace[f"records.weight.{name}"]["output"].values[0], weight.detach().numpy())
        gradient = trace[f"records.gradient.{name}"]
        np.testing.assert_allclose(gradient["output"].values[0], weight.grad.numpy(), atol=1e-7)
        assert gradient["l2_norm"].values[0] == pytest.approx(float(weight.grad.norm()), rel=1e-4, abs=1e-7)


def test_weights_move(trace: Trace, training: Training[UNet]) -> None:
    """The weights differ from step to step, and the average follows them."""
    weights = trace["records.weight.out"]["output"].values
    assert all(np.abs(np.diff(weights, axis=0)).max(axis=(1, 2, 3, 4)) > 0)
    start, average, last = (it.out.weight.detach() for it in (new_unet(8, 8), training.average, training.network))
    assert 0 < float((average - last).norm()) < float((start - last).norm())


def test_it_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss falls, and stands beside the progress bar."""
    training = Training(new_unet(8, 8), steps=60, rate=1e-2, every=60)
    for pictures, _ in training.steps(Lab(tmp_path), pairs()):
        training.learn(F.mse_loss(training(pictures), pictures))
    assert np.mean(training.losses[-5:]) < 0.5 * np.mean(training.losses[:3])
    assert "loss=" in capsys.readouterr().err
