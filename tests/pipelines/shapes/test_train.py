"""The training loop: schedule, interruption, resumption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.pipelines.shapes.architecture import make_vae
from diffusion_xray.pipelines.shapes.loop import Schedule, generator_for, train
from diffusion_xray.pipelines.shapes.train_denoiser import train_denoiser

SCHEDULE = Schedule(steps=9, peak=1e-2, warmup=0.2, decay=0.5, average=0.9)


def tiny_model() -> nn.Module:
    """A model that trains in no time, with a buffer that is no parameter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))


def loss_of(model: nn.Module, *, fail_at: int | None = None) -> Callable[[int], Tensor]:
    """A loss that is interrupted at a step."""

    def loss(step: int) -> Tensor:
        if step == fail_at:
            raise InterruptedError(f"interrupted at step {step}")
        inputs = torch.randn(8, 3, generator=generator_for(7, step))
        error: Tensor = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        return error

    return loss


def train_tiny(checkpoint: Path, *, fail_at: int | None = None) -> nn.Module:
    """Train the tiny model, or resume."""
    model = tiny_model()
    return train(model, loss_of(model, fail_at=fail_at), SCHEDULE, checkpoint, title="tiny", save_every=2)


@pytest.mark.parametrize("fail_at", [1, 4, 5, 8])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path, fail_at: int) -> None:
    """A run that is interrupted and called again ends with exactly the weights of a run that was not."""
    straight = train_tiny(tmp_path / "straight.pt")
    with pytest.raises(InterruptedError):
        train_tiny(tmp_path / "broken.pt", fail_at=fail_at)
    resumed = train_tiny(tmp_path / "broken.pt")
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    """Calling a finished run again takes no step and gives the same weights, in evaluation mode."""
    first = train_tiny(tmp_path / "done.pt")
    again = train_tiny(tmp_path / "done.pt", fail_at=0)
    assert not again.training
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_an_interruption_leaves_no_partial_checkpoint(tmp_path: Path) -> None:
    """Checkpoints are written whole: only the finished file is there after an interruption."""
    with pytest.raises(InterruptedError):
        train_tiny(tmp_path / "broken.pt", fail_at=5)
    assert [file.name for file in tmp_path.iterdir()] == ["broken.pt"]


def test_the_rate_climbs_stays_and_falls() -> None:
    """The learning rate climbs to its peak, stays there until the last share of the steps, and falls to zero."""
    schedule = Schedule(steps=1000, peak=2.0, warmup=0.01, decay=0.4, average=0.9)
    rates = [schedule.rate(step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:600] == pytest.approx([2.0] * 591)
    assert rates[600:] == sorted(rates[600:], reverse=True)
    assert rates[800] == pytest.approx(1.0)
    assert rates[1000] == pytest.approx(0.0)


def test_random_numbers_depend_on_seed_and_step() -> None:
    """A step has its own random numbers, the same at every call."""
    draws = {(seed, step): torch.rand(4, generator=generator_for(seed, step)) for seed in (1, 2) for step in (0, 1)}
    for (seed, step), draw in draws.items():
        assert torch.equal(draw, torch.rand(4, generator=generator_for(seed, step)))
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 4


def test_the_denoiser_trains_and_resumes(tmp_path: Path) -> None:
    """Two steps of the real recipe give weights that a second call finds again."""
    torch.manual_seed(0)
    vae = make_vae().eval()
    parts = train_denoiser(vae, tmp_path, samples=(32,), scenes=64)
    again = train_denoiser(vae, tmp_path, samples=(32,), scenes=64)
    for first, second in zip(parts, again, strict=True):
        assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
        assert all(value.isfinite().all() for value in first.parameters())


def test_a_child_learns_at_its_own_rate(tmp_path: Path) -> None:
    """With a rate of zero a child keeps its weights while the others learn."""
    model, before = tiny_model(), tiny_model()
    train(model, loss_of(model), SCHEDULE, tmp_path / "rates.pt", title="rates", rates={"0": 0.0})
    assert torch.equal(model.get_parameter("0.weight"), before.get_parameter("0.weight"))
    assert not torch.equal(model.get_parameter("3.weight"), before.get_parameter("3.weight"))


def test_a_further_cycle_starts_again_at_half_the_peak() -> None:
    """After the first fall to zero a further cycle climbs to half of the peak and falls again."""
    schedule = Schedule(steps=1000, peak=2.0, warmup=0.1, decay=0.4, average=0.9, further=(500,))
    assert schedule.total == 1500
    assert schedule.rate(999) < 1e-4
    assert schedule.rate(1024) == pytest.approx(0.5)
    assert schedule.rate(1100) == 1.0
    assert schedule.rate(1499) < 1e-4
