"""The trace format, defined once: names, paths, dimensions, dtypes, chunking. docs/format.md tells it in prose.

Writer and reader both import this module; it does no I/O and needs neither torch nor zarr.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = [
    "FORMAT_VERSION",
    "HISTOGRAM_BINS",
    "IO_GROUP",
    "LATENTS",
    "MEASURED",
    "RECORDS",
    "RESERVED",
    "SEQUENCE",
    "STATISTICS",
    "ArraySpec",
    "Codec",
    "array_name",
    "as_text",
    "beside",
    "dimension_names",
    "module_group",
    "shape_group",
    "table_group",
]

FORMAT_VERSION: Final = 2
"""Raised whenever a reader of the old version would misread a new trace."""

MEASURED: Final = (
    "min",
    "max",
    "mean",
    "std",
    "l2_norm",
    "abs_max",
    "nans",
    "positive_infs",
    "negative_infs",
    "zeros",
    "count",
)
"""What is measured of a tensor. Moments and extrema are over the finite values; the counts tell the rest."""

SEQUENCE: Final = "sequence"
"""When a tensor was made: numbers ascend over the whole run and all components. No property of the tensor itself."""

STATISTICS: Final = (*MEASURED, SEQUENCE)
"""Columns of the statistics table. Format 1 has no `SEQUENCE`."""

HISTOGRAM_BINS: Final = 4096
"""Float-bit histogram: sign, 8 bits of exponent, 3 bits of mantissa of the value as float32."""

SHARD_STEPS: Final = 128
"""Steps in one shard file; its index takes 16 bytes a step and is updated in place."""

MANY_VARIANTS: Final = 4
"""A site with more arrays than this seldom comes back to a shape: further ones get files of one step, without the 2 KiB
of index that a shard of `SHARD_STEPS` begins with."""

SITE_BLOCK: Final = 256
"""Sites in one chunk of the statistics table. A table grows by whole blocks without rewriting older ones."""

MOST_STEPS: Final = 1 << 24
"""Of a run; at a step a second that is half a year."""

ROOT_CHUNK: Final = 1024
"""Steps in one chunk of the small arrays at the root (step, timestep, sigma, ...)."""

IO_GROUP: Final = "_io"
"""Child group that holds the tensors of a module that has children.

A `DataTree` refuses to open when an array's dimension has another size in a group above it. With this rule no array
lies above another one, apart from the coordinates of `step` at the root.
"""

STATISTICS_GROUP: Final = "statistics"
LATENTS: Final = "latents"
PROMPTS: Final = "prompts"
IMAGES: Final = "images"
RECORDS: Final = "records"
ROOT_ARRAYS: Final[Mapping[str, tuple[str, Any]]] = {
    "step": ("int64", 0),
    "timestep": ("float64", "NaN"),
    "sigma": ("float64", "NaN"),
    "stage": ("int8", 0),
    "committed": ("uint8", 0),
}
"""Name, dtype and fill value of the arrays along `step` at the root."""

RESERVED: Final = frozenset({STATISTICS_GROUP, LATENTS, PROMPTS, IMAGES, RECORDS, *ROOT_ARRAYS, "c", "zarr.json"})
"""Names a component cannot have, because the root uses them itself."""

NOT_CAPTURED: Final = 0
HAS_STATISTICS: Final = 1
HAS_TENSOR: Final = 2
"""Values of the table's `captured` array: nothing, statistics only, statistics and the tensor.

From `HAS_TENSOR` on the value also tells where the tensor lies: `HAS_TENSOR` + k, in the k-th array of its site.
"""

_LONGEST_SEGMENT: Final = 160
"""Characters of an encoded name; file systems allow 255, and a name may get something in front and behind."""
_KEPT: Final = 100
"""Characters that are left of a longer one."""
_LONGEST_GROUP: Final = 1800
"""Characters of a path of groups; systems allow 4096, and some half of it."""

MOST_VARIANTS: Final = 1 << 14
"""Further arrays of one site, for further shapes; `captured` has room for four times as many."""

Codec = Literal["auto", "lz4", "zstd", "raw"]
"""How chunks are compressed; "auto" is settled by the first chunk of an array, before its metadata are written."""

FLOATING: Final = ("float", "complex")
"""How the names of types begin that are made of floats."""

_DIMENSIONS: Final[Mapping[int, tuple[str, ...]]] = {
    0: (),
    1: ("batch",),
    2: ("batch", "channel"),
    3: ("batch", "token", "channel"),
    4: ("batch", "channel", "height", "width"),
    5: ("batch", "channel", "frame", "height", "width"),
}


def dimension_names(rank: int) -> tuple[str, ...]:
    """Names of a tensor's dimensions by its rank, the batch first."""
    return _DIMENSIONS.get(rank, ("batch", *(f"axis_{axis}" for axis in range(1, rank))))


def as_text(name: object) -> str:
    """A name that can be written down: half of a surrogate pair, which is no character, becomes its escape."""
    return str(name).encode("utf-8", "backslashreplace").decode()


@functools.lru_cache(maxsize=1 << 14)  # modules have few names, and each is asked for with every path through it
def encode_segment(name: str) -> str:
    """A module's own name as a node name of Zarr: anything unusual becomes ``%xx``, so paths stay in the store.

    One that would be longer than a file may be called is cut, and ends in ``%-`` and a hash of the whole.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]", lambda match: "".join(f"%{byte:02x}" for byte in as_text(match[0]).encode()), name)
    safe = f"%5f{safe[1:]}" if safe.startswith("_") else safe
    return safe if len(safe) <= _LONGEST_SEGMENT else _shortened(safe, name)


def module_group(module: str, *, has_children: bool) -> str:
    """Group that holds the tensors of a module, "unet.mid_block" -> "unet/mid_block/_io"."""
    segments = [encode_segment(segment) for segment in module.split(".")]
    group = "/".join(segments)
    if len(group) > _LONGEST_GROUP:  # deeper than a path may be long
        group = f"{segments[0]}/{_shortened(segments[-1], module)}"
    return f"{group}/{IO_GROUP}" if has_children else group


def _shortened(safe: str, name: str) -> str:
    """The beginning of an encoded name, and what tells it from all others; "%-" is in no other."""
    start = re.sub("%.?$", "", safe[:_KEPT])
    return f"{start}%-{hashlib.sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:20]}"


def shape_group(group: str, number: int) -> str:
    """Group for tensors of another shape than those in `group`, beside it, as one group knows one size of a name.

    ``unet/mid_block/_io`` -> ``unet/mid_block/_io_shape1``, ``unet/conv_in`` -> ``unet/_shape1_conv_in``. No module's
    own name begins with an underscore once encoded, so none of these is that of a module.
    """
    parent, slash, name = group.rpartition("/")
    return f"{parent}{slash}{name}_shape{number}" if name == IO_GROUP else f"{parent}{slash}_shape{number}_{name}"


def beside(group: str, leaf: str) -> str:
    """Where `group`, which is below the group `leaf`, goes once arrays lie in `leaf`.

    ``unet/to_v/lora_A``, ``unet/to_v`` -> ``unet/_below_to_v/lora_A``.
    """
    parent, slash, name = leaf.rpartition("/")
    return f"{parent}{slash}_below_{name}{group.removeprefix(leaf)}"


def table_group(component: str, *, stepped: bool) -> str:
    """Group of a component's statistics table; what fires outside of the denoising loop has a table of its own."""
    return f"{STATISTICS_GROUP}/{encode_segment(component)}{'' if stepped else '_once'}"


def array_name(port: str, call: int) -> str:
    """Array of a port: "output", and "output_call1" for the second time a module fires within a step."""
    return f"{port}_call{call}" if call else port


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of the store; `metadata` is its ``zarr.json``."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None = None
    """Extent of one shard file when chunks are appended along the first dimensions; None for plain chunks."""
    codec: Codec = "lz4"
    fill: Any = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    has_checksums: bool = True
    """Whether each chunk ends in its CRC-32C; not where elements are set in place while readers look."""

    @property
    def grid(self) -> tuple[int, ...]:
        """Extent of one file on disk."""
        return self.shard or self.chunk

    @property
    def chunks_per_shard(self) -> tuple[int, ...]:
        """Chunks in one file along each dimension."""
        return tuple(outer // inner for outer, inner in zip(self.grid, self.chunk, strict=True))

    def metadata(self) -> dict[str, Any]:
        """The array's metadata document of Zarr v3."""
        codecs: list[dict[str, Any]] = codec_chain(self.dtype, self.codec, has_checksums=self.has_checksums)
        if self.shard:
            configuration = {
                "chunk_shape": list(self.chunk),
                "codecs": codecs,
                "index_codecs": [_BYTES],
                "index_location": "start",
            }
            codecs = [{"name": "sharding_indexed", "configuration": configuration}]
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.grid)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": self.fill,
            "codecs": codecs,
            "attributes": dict(self.attributes),
            "dimension_names": list(self.dims),
            "storage_transformers": [],
        }


_BYTES: Final = {"name": "bytes", "configuration": {"endian": "little"}}


def codec_chain(dtype: str, codec: Codec, *, has_checksums: bool) -> list[dict[str, Any]]:
    """Codecs of one chunk.

    Bitshuffle lets lz4 squeeze signs and exponents, all that compresses in activations. Counts are mostly small or
    zero, and shuffling their bytes is as good and 2.5 times faster.
    """
    last: list[dict[str, Any]] = [{"name": "crc32c"}] if has_checksums else []
    if dtype == "string":
        return [{"name": "vlen-utf8", "configuration": {}}, *last]
    if codec == "raw":
        return [_BYTES, *last]
    configuration = {
        "typesize": item_size(dtype),
        "cname": codec,
        "clevel": 1,
        "shuffle": "bitshuffle" if dtype.startswith(FLOATING) else "shuffle",
        "blocksize": 0,
    }
    return [_BYTES, {"name": "blosc", "configuration": configuration}, *last]


def item_size(dtype: str) -> int:
    """Bytes of one element."""
    bits = re.search(r"\d+$", dtype)
    return int(bits[0]) // 8 if bits else 1


def missing(dtype: str) -> Any:
    """Fill value of tensors of a dtype, as Zarr's metadata have it."""
    if dtype.startswith("complex"):
        return ["NaN", "NaN"]
    return "NaN" if dtype.startswith("float") else "" if dtype == "string" else False if dtype == "bool" else 0


def fill_number(fill: Any) -> complex | float:
    """A fill value of Zarr's metadata as a number."""
    return complex(*map(float, fill)) if isinstance(fill, list) else float(fill)


def tensor_spec(
    path: str,
    dtype: str,
    shape: Sequence[int],
    dims: Sequence[str],
    *,
    steps: int | None,
    codec: Codec,
    attributes: Mapping[str, Any],
    shard_steps: int = SHARD_STEPS,
) -> ArraySpec:
    """An array for a tensor of `shape`: appended step by step, or written once when `steps` is None."""
    fill = missing(dtype)
    chunk = tuple(max(size, 1) for size in shape)
    if steps is None:
        return ArraySpec(path, dtype, tuple(shape), tuple(dims), chunk, None, codec, fill, attributes)
    return ArraySpec(
        path,
        dtype,
        (steps, *shape),
        ("step", *dims),
        (1, *chunk),
        (shard_steps, *chunk),
        codec,
        fill,
        attributes,
    )


def table_specs(group: str, *, steps: int | None, sites: int, attributes: Mapping[str, Any]) -> list[ArraySpec]:
    """The arrays of one component's table: statistics, histogram and captured."""
    lead_shape, lead_dims = ((), ()) if steps is None else ((steps,), ("step",))
    lead_chunk, lead_shard = ((), ()) if steps is None else ((1,), (SHARD_STEPS,))
    specs = []
    for name, dtype, fill, dim, size in (
        ("statistics", "float64", "NaN", ("statistic",), (len(STATISTICS),)),
        ("histogram", "uint32", 0, ("bin",), (HISTOGRAM_BINS,)),
        ("captured", "uint16", 0, (), ()),
    ):
        specs.append(
            ArraySpec(
                f"{group}/{name}",
                dtype,
                (*lead_shape, sites, *size),
                (*lead_dims, "site", *dim),
                (*lead_chunk, SITE_BLOCK, *size),
                (*lead_shard, SITE_BLOCK, *size) if steps is not None else None,
                "lz4",
                fill,
                attributes,
            )
        )
    return specs
