"""What a `Trace` offers of attention: maps of modules, maps and shares of words."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..arrays import TraceArrays
from ..errors import SiteNotFoundError
from ..info import SiteInfo
from .info import AttentionInfo, Attentions
from .texts import CONDITIONAL
from .word_map import Choice, head_maps, word_map, word_mass, words_of
from .words import Word

if TYPE_CHECKING:
    import xarray

__all__ = ["AttentionReader"]


class AttentionReader(TraceArrays):
    """The part of `Trace` that reads attention."""

    @functools.cached_property
    def attentions(self) -> Attentions:
        """The calls themselves: what their positions stand for, and where to read what each kernel was given."""
        return Attentions(self._archive, self.modules, self.info, self.prompts, self._captured)

    def _captured(self, site: SiteInfo) -> NDArray[np.uint8]:
        captured: NDArray[np.uint8] = self.table(site.name.split(".", 1)[0], stepped=site.stepped).captured
        return captured[:, site.row]

    @property
    def attention_modules(self) -> Mapping[str, tuple[AttentionInfo, ...]]:
        """The attention calls of every module that has any, in call order."""
        return self.attentions.by_module

    def attention(self, module: str, call: int = 0, *, step: int | None = None) -> xarray.DataArray:
        """The attention map of a module, lazily: softmax(Q Kᵀ · scale + mask) of what the kernel received.

        Dimensions (step, batch, head, query, key), without `step` outside of the loop; float32. Indexing computes what
        is asked for, in blocks; `docs/attention.md` has the coordinates.

        Where the shapes, the scale or the positions change along the steps, as they do in a cascade or with another
        prompt, an array has the steps that are alike, and NaN at the others; its attribute `steps` lists its own.

        Args:
            module: Path of the module that attends, "unet.mid_block.attentions.0.transformer_blocks.0.attn2".
            call: Which of its attention calls within a step.
            step: One of the steps that are wanted, where not all are alike; the first that has a map by default.

        Raises:
            SiteNotFoundError: There is no such map; the message says why and what would have recorded it.
        """
        from .lazy import attention_array

        found = self.attentions.find(module, call, None if step is None else self._steps_of(step)[0])
        return attention_array(self.attentions, found, timestep=self.timestep, sigma=self.sigma)

    def words(self, *, branch: str = CONDITIONAL, image: int = 0, step: int | None = None) -> tuple[Word, ...]:
        """The words that an image attended to, with their positions in the text: see `word_map`.

        Where one trace holds several calls of a pipeline, each has its own: `step` chooses, the first by default.

        Raises:
            SiteNotFoundError: No attention of an image to a text was recorded, or the text is not known.
        """
        return words_of(self.attentions, Choice(branch=branch, image=image), step)

    def word_map(
        self,
        word: str | Sequence[str],
        *,
        step: int | Sequence[int] | None = None,
        layers: str | None = None,
        heads: int | Sequence[int] | None = None,
        branch: str = CONDITIONAL,
        image: int = 0,
        occurrence: int | None = None,
    ) -> xarray.DataArray:
        """Where an image looks at a word: the share of its attention, averaged over layers and heads.

        For every layer ℓ with attention of image positions to text (cross or joint) and every head h, the
        probabilities of the word's tokens are summed, arranged as the layer's grid, and enlarged to the largest grid:

            M[y, x] = mean over ℓ, h of  up( Σ_{k in word} softmax(Q Kᵀ · scale + mask)[(y, x), k] )

        This is the aggregation of DAAM (Tang et al. 2022, "What the DAAM", arXiv:2210.04885, equations 4 to 6), with
        means in place of sums, so that values stay shares from 0 to 1, and linear in place of bicubic interpolation,
        which cannot overshoot. Every layer and every head within it counts the same. DAAM also sums over steps:
        ``.mean("step")``.

        Args:
            word: A word or phrase of the prompt, or a special token; pieces are joined, letter case does not matter.
                Of several all maps are computed at once.
            step: A step, or several; None for all.
            layers: Glob on module paths; None for all.
            heads: Numbers of heads; None for all.
            branch: Guidance branch, "conditional" or "unconditional", each with its own prompt.
            image: Which image of the batch.
            occurrence: Which of several places of the word, from 0; None for their sum.

        Returns:
            float32 (step, y, x), or (step, frame, y, x) of a video; without `step` when one number was given, and with
            `word` in front when several words were. NaN where a step was not captured, and in steps of another call of
            the pipeline whose prompt has not the word.

        Raises:
            SiteNotFoundError: The word is not in the prompt (the message lists those that are), or there is no such
                step, layer or attention.
        """
        steps, choice = self._steps_of(step), Choice(layers, heads, branch, image)
        words = [word] if isinstance(word, str) else list(word)
        found = self._with_times(word_map(self.attentions, words, steps, choice, occurrence))
        found = found.isel(word=0) if isinstance(word, str) else found
        return found.isel(step=0) if isinstance(step, int) else found

    def head_maps(
        self,
        word: str,
        *,
        step: int | Sequence[int] | None = None,
        layers: str | None = None,
        heads: int | Sequence[int] | None = None,
        branch: str = CONDITIONAL,
        image: int = 0,
    ) -> xarray.DataArray:
        """Where each head of each layer looks at a word: what `word_map` averages.

        Args and errors are those of `word_map`.

        Returns:
            float32 (step, layer, head, y, x), of a video with `frame` before y, without `step` when one number was
            given; NaN for heads that a layer has not.
        """
        choice = Choice(layers, heads, branch, image)
        found = self._with_times(head_maps(self.attentions, word, self._steps_of(step), choice))
        return found.isel(step=0) if isinstance(step, int) else found

    def word_mass(
        self,
        word: str | None = None,
        *,
        step: int | Sequence[int] | None = None,
        layers: str | None = None,
        heads: int | Sequence[int] | None = None,
        branch: str = CONDITIONAL,
        image: int = 0,
    ) -> xarray.DataArray:
        """The share of an image's attention that each word receives, averaged over its positions and heads.

        Args and errors are those of `word_map`; without `word` the share of every word, "a#1" being the second "a".

        Returns:
            float32 (step, layer, word), without `step` when one number was given; over the words of a layer that sees
            the text alone it sums to 1.
        """
        choice = Choice(layers, heads, branch, image)
        found = self._with_times(word_mass(self.attentions, word, self._steps_of(step), choice))
        return found.isel(step=0) if isinstance(step, int) else found

    def _steps_of(self, step: int | Sequence[int] | None) -> list[int]:
        steps = list(range(self.n_steps)) if step is None else [step] if isinstance(step, int) else list(step)
        for wrong in steps:
            if not 0 <= wrong < self.n_steps:
                raise SiteNotFoundError(f"no step {wrong}; the trace has {self.n_steps} complete steps, from 0")
        return steps

    def _with_times(self, array: xarray.DataArray) -> xarray.DataArray:
        steps = array["step"].values.astype(np.intp)  # of no step they are floats
        return array.assign_coords(timestep=("step", self.timestep[steps]), sigma=("step", self.sigma[steps]))
