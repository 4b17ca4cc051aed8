"""The UNet that the training recipes train."""

import pytest
import torch

from diffusion_xray.pipelines.recipes.training.unet import UNet, new_unet


def shaken(network: UNet) -> UNet:
    """The network with other weights than the zeros that some begin with."""
    torch.manual_seed(1)
    for name, weight in network.named_parameters():
        if not name.startswith("embed"):
            torch.nn.init.normal_(weight, std=0.2)
    return network


@pytest.mark.parametrize("size", [8, 28])
def test_a_picture_comes_out_as_large_as_it_went_in(size: int) -> None:
    """The digits of scikit-learn and those of MNIST fit, told nothing, the time, or the time and the class."""
    x, t, label = torch.randn(3, 1, size, size), torch.rand(3), torch.tensor([0, 9, 10])
    assert new_unet(size)(x).shape == x.shape
    assert new_unet(size, timed=True)(x, t).shape == x.shape
    assert new_unet(size, timed=True, classes=10)(x, t, label).shape == x.shape
    with pytest.raises(ValueError, match="multiple of 4"):
        new_unet(9)


def test_time_and_class_are_scale_and_offset() -> None:
    """A decoder's channels are scaled by one plus, and shifted by, what time and class say of them."""
    network = shaken(new_unet(8, timed=True, classes=10))
    seen = {}
    for name in ("time", "class"):
        network.embed[name].register_forward_hook(lambda *it, name=name: seen.update({name: it[2]}))
    network.modulate2.register_forward_hook(lambda _, args, out: seen.update(before=args[0], after=out))
    network(torch.randn(2, 1, 8, 8), torch.tensor([0.1, 0.9]), torch.tensor([3, 7]))
    weights = {what: getattr(network.modulate2, what) for what in ("scale", "offset")}
    scale, offset = (weights[what]["time"](seen["time"]) + weights[what]["class"](seen["class"]) for what in weights)
    expected = (1 + scale[:, :, None, None]) * seen["before"] + offset[:, :, None, None]
    torch.testing.assert_close(seen["after"], expected)
    assert not torch.allclose(seen["after"], seen["before"])


def test_no_class_says_nothing() -> None:
    """Told no class, by its number or by leaving it out, the network has scales and offsets of zero for it."""
    network = shaken(new_unet(8, timed=True, classes=10))
    said = []
    for part in (network.modulate1, network.modulate2, network.modulate3):
        for linear in (part.scale["class"], part.offset["class"]):
            linear.register_forward_hook(lambda _, __, out: said.append(out))
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    left_out = network(x, t)
    assert torch.equal(network(x, t, torch.tensor([10, 10])), left_out)
    assert len(said) == 12 and all((out == 0).all() for out in said)
    assert not torch.allclose(network(x, t, torch.tensor([1, 2])), left_out)


def test_no_class_is_not_trained() -> None:
    """A step of training leaves the row of no class at zero, and moves those of the classes shown."""
    network = shaken(new_unet(8, timed=True, classes=10))
    rows = network.get_parameter("embed.class.weight")
    network(torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([4, 10])).square().mean().backward()
    assert rows.grad is not None
    assert rows.grad[4].abs().sum() > 0 and rows.grad[10].abs().sum() == 0 and rows[10].abs().sum() == 0


def test_first_weights_follow_from_the_seed() -> None:
    """The same seed gives the same network and another one another, and the global random state is left alone."""
    before = torch.get_rng_state()
    one, same, other = (new_unet(8, seed=seed).enter.conv1.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
