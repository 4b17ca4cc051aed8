"""What to keep: the patterns, the levels, and what they say when they match nothing."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from diffusion_xray.tracer import Capture, CaptureError
from diffusion_xray.tracer.capture import Selection, is_attention, matches

from .networks import Denoiser


class Attention(nn.Module):
    """Has the name of the real thing."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(2, 2)
        self.to_k = nn.Linear(2, 2)


class TransformerBlock(nn.Module):
    """Two attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(), Attention()


class UNet(nn.Module):
    """Nested as a UNet is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(1, 1, 1)
        self.up_blocks = nn.ModuleList([TransformerBlock(), nn.ModuleList([TransformerBlock()])])


def modules_of(**components: nn.Module) -> dict[str, nn.Module]:
    """Modules by full path."""
    return {
        f"{component}.{path}" if path else component: module
        for component, root in components.items()
        for path, module in root.named_modules()
    }


MODULES = modules_of(unet=UNet(), vae=nn.Sequential(nn.Linear(1, 1), nn.ReLU()))


def chosen(wanted: Any) -> set[str]:
    """Paths that are kept."""
    return set(Selection.of(wanted, MODULES).modules)


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        ("unet.mid", ["unet.mid"], ["unet", "unet.mid.a", "unetxmid", "a.unet.mid"]),
        ("unet.*", ["unet.a", "unet."], ["unet", "unet.a.b"]),
        ("*.attn", ["unet.attn"], ["attn", "a.b.attn"]),
        ("unet.up*", ["unet.up", "unet.up_blocks"], ["unet.up_blocks.0", "unet.down"]),
        ("unet.*.conv?", ["unet.a.conv1"], ["unet.a.conv", "unet.a.conv12", "unet.a.b.conv1", "unet.a.conv."]),
        ("unet.**", ["unet", "unet.a", "unet.a.b.c"], ["unets", "vae.a", "unets.a"]),
        ("**.attn2", ["attn2", "unet.attn2", "unet.a.b.attn2"], ["xattn2", "unet.xattn2", "attn2.a"]),
        ("unet.**.attn2", ["unet.attn2", "unet.a.attn2", "unet.a.b.attn2"], ["unet.xattn2", "attn2", "unetattn2"]),
        ("unet.**.a*.**", ["unet.x.attn", "unet.attn.to_q.0"], ["unet.x.b"]),
        ("**", ["", "unet", "unet.a.b"], []),
        ("*", ["unet", ""], ["unet.a"]),
        ("a.b+c[0](d)", ["a.b+c[0](d)"], ["a.bbc0d"]),
    ],
)
def test_a_glob_fits_whole_paths(pattern: str, fits: list[str], fails: list[str]) -> None:
    """``*`` and ``?`` stay within one part of a path, ``**`` crosses parts and may be none; all else is literal."""
    test = matches(pattern)
    assert [path for path in fits if not test(path)] == []
    assert [path for path in fails if test(path)] == []


def test_levels() -> None:
    """Level "statistics" keeps no tensors, "all" every module's, and both keep the latents."""
    assert chosen("statistics") == set()
    assert chosen("all") == set(MODULES)
    assert Selection.of("statistics", MODULES).capture.latents


def test_blocks_are_known_by_class() -> None:
    """Level "blocks" keeps block classes at any depth; a component without any keeps the children of its root."""
    assert chosen("blocks") == {"unet.up_blocks.0", "unet.up_blocks.1.0", "vae.0", "vae.1"}
    assert "model.blocks.0" in Selection.of("blocks", modules_of(model=Denoiser())).modules


def test_a_single_layer_is_its_own_block() -> None:
    """Where a component is one layer without children, "blocks" keeps that."""
    assert Selection.of("blocks", modules_of(model=nn.Linear(1, 1))).modules == {"model"}


def test_attention_is_chosen_by_path() -> None:
    """Levels "attention" and "all" keep the calls of every module, a glob those it matches, and no other any."""
    attended = {path for path in MODULES if path.endswith(("attn1", "attn2"))}
    assert Selection.of("attention", MODULES).attention == set(MODULES)
    assert Selection.of("attention", MODULES).modules == Selection.of("blocks", MODULES).modules
    assert Selection.of("all", MODULES).attention == set(MODULES)
    assert Selection.of("blocks", MODULES).attention == Selection.of("statistics", MODULES).attention == set()
    chosen = Selection.of(Capture(attention=["unet.**.attn1", "**.attn2"]), MODULES)
    assert chosen.attention == attended
    assert chosen.modules == set()
    assert {path for path, module in MODULES.items() if is_attention(module)} == attended


def test_patterns_and_classes_add_up() -> None:
    """Modules are kept that match any pattern or any class; a single pattern need not be a tuple."""
    assert chosen(Capture(modules="unet.**.attn2")) == {"unet.up_blocks.0.attn2", "unet.up_blocks.1.0.attn2"}
    assert chosen(Capture(classes="TransformerBlock")) == {"unet.up_blocks.0", "unet.up_blocks.1.0"}
    assert chosen(Capture(modules=["unet.conv_in", "vae"], classes=("ReLU",))) == {"unet.conv_in", "vae", "vae.1"}
    assert chosen(Capture()) == set()


@pytest.mark.parametrize(
    ("capture", "words"),
    [
        (
            Capture(modules="unet.conv_inn"),
            r"modules='unet.conv_inn' matches none of the 21 modules.*mean unet.conv_in",
        ),
        (Capture(modules=("unet.conv_in", "**.attn3")), r"modules='\*\*.attn3' matches none"),
        (Capture(classes="TransformerBlok"), "classes='TransformerBlok'.*Did you mean TransformerBlock"),
        (Capture(modules="**to_q**x"), "matches none"),
        (Capture(attention="unet.**.attn3"), r"attention='unet.\*\*.attn3' matches none"),
        (Capture(attention="unet.up_blocks.0"), r"no module that looks like .*up_blocks.0.attn1, .* add \.\*\*"),
        (Capture(attention=["**.attn1", "**.attn1.to_q"]), r"'\*\*.attn1.to_q' matches no module that looks like"),
        ("everything", "capture='everything': choose from 'statistics', 'blocks', 'attention', 'all'"),
        (None, "capture=None"),
    ],
)
def test_what_matches_nothing_is_named(capture: Any, words: str) -> None:
    """A pattern, class or level that fits nothing is an error that lists what may have been meant."""
    with pytest.raises(CaptureError, match=words):
        Selection.of(capture, MODULES)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"every": 4}, [0, 4, 8]),
        ({"steps": range(2, 6)}, [2, 3, 4, 5]),
        ({"steps": range(1, 10, 2), "every": 2}, [1, 5, 9]),
        ({"steps": [7, 3]}, [3, 7]),
        ({"steps": [7, 3, 1], "every": 2}, [1, 7]),
        ({"steps": []}, []),
    ],
)
def test_steps_to_keep(options: dict[str, Any], kept: list[int]) -> None:
    """`every` counts from the first of the chosen steps; what fires outside of the loop is always kept."""
    capture = Capture(**options)
    assert [step for step in range(10) if capture.wants_step(step)] == kept
    assert capture.wants_step(None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every=0"),
        ({"every": -1}, "every=-1"),
        ({"every": 1.5}, "every=1.5"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16': tensors are stored as auto or float32 or float16"),
        ({"attention": "**", "attention_heads": [0, -1]}, r"attention_heads=\[0, -1\]"),
        ({"attention": "**", "attention_heads": []}, r"attention_heads=\[\]"),
        ({"attention": "**", "attention_heads": [2, 2]}, "different numbers of heads"),
        ({"attention": "**", "attention_heads": 2}, "attention_heads=2"),
        ({"attention_heads": [0]}, "attention_heads needs .* attention="),
        ({"attention_output": True}, "attention_output needs .* attention="),
        ({"codec": "gzip"}, "codec='gzip': choose from auto, lz4, zstd, raw"),
        ({"steps": [-1]}, r"steps=\[-1\]"),
        ({"steps": [0.5]}, "steps="),
        ({"steps": range(-2, 3)}, "steps=range"),
        ({"steps": 3}, "steps=3: give step indices"),
        ({"modules": 3}, "modules=3: give a glob"),
        ({"classes": ["Linear", None]}, "classes=.*: give a glob"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    """An option out of range is an error where it is given, and names the value."""
    with pytest.raises(CaptureError, match=words):
        Capture(**options)


def test_the_description_is_json() -> None:
    """What goes into the trace's attributes is plain data."""
    described = Capture(modules="unet.**", steps=range(3)).describe()
    assert described["modules"] == ("unet.**",)
    assert described["steps"] == [0, 1, 2]
    assert described["codec"] == described["dtype"] == "auto"
