"""The two forms of a shard: images with their categories in, one file's bytes out, and back.

The same images give the same bytes, whoever packs them and when. Packing and unpacking Parquet needs pyarrow.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from skincare.dataset.chat import Example, to_element
from skincare.errors import StageError

Format = Literal["webdataset", "parquet"]
Packed = Sequence[tuple[Example, bytes]]


@dataclass(frozen=True)
class ShardFormat:
    """How shards of one kind are called, written and read."""

    ending: str
    # The flag: whether any example of the dataset carries a hint; hints then have a place in every shard.
    pack: Callable[[Packed, bool], bytes]
    # Yields image id and bytes of each image; any bytes give images or one of the errors that `unpack` names.
    unpack: Callable[[bytes], Iterator[tuple[str, bytes]]]


def unpack(kind: "Format", content: bytes) -> dict[str, bytes]:
    """Return a shard's images by image id; ValueError where the bytes are no such shard."""
    try:
        return dict(FORMATS[kind].unpack(content))
    except (tarfile.TarError, OSError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no {kind} shard: {error}") from error


def _pack_tar(packed: Packed, _has_hints: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for one, content in packed:
            # A key of WebDataset ends at the first dot, and product names hold dots: the image id does not.
            element = json.dumps(to_element(one), ensure_ascii=False).encode()
            for ending, member in ((".jpg", content), (".cls.txt", one.category.encode()), (".json", element)):
                info = tarfile.TarInfo(one.image_id + ending)
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
    return buffer.getvalue()


def _unpack_tar(content: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for info in tar:
            if info.isfile() and info.name.endswith(".jpg") and (member := tar.extractfile(info)):
                yield info.name.removesuffix(".jpg"), member.read()


def _pack_parquet(packed: Packed, has_hints: bool) -> bytes:
    arrow, parquet = pyarrow_modules()
    texts = ("category", "image_id", "product_id", *(("hint",) if has_hints else ()))
    features = {
        "image": {"_type": "Image"},
        **{name: {"dtype": "string", "_type": "Value"} for name in texts},
    }
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema(
        [("image", image), *((name, arrow.string()) for name in texts)],
        # By this `datasets` knows an image from a record.
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [
        {
            "image": {"bytes": content, "path": one.image.rpartition("/")[2]},
            **{name: getattr(one, name) for name in texts},
        }
        for one, content in packed
    ]
    buffer = io.BytesIO()
    # JPEGs do not get smaller.
    parquet.write_table(arrow.Table.from_pylist(rows, schema), buffer, compression="none", row_group_size=100)
    return buffer.getvalue()


def _unpack_parquet(content: bytes) -> Iterator[tuple[str, bytes]]:
    _, parquet = pyarrow_modules()
    for row in parquet.read_table(io.BytesIO(content), columns=["image", "image_id"]).to_pylist():
        yield row["image_id"], row["image"]["bytes"]


def pyarrow_modules() -> tuple[Any, Any]:
    """Return pyarrow and pyarrow.parquet; StageError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise StageError("Parquet needs pyarrow: pip install pyarrow==26.0.1, or take --format webdataset") from error
    return pyarrow, pyarrow.parquet


FORMATS: Final[dict[Format, ShardFormat]] = {
    "webdataset": ShardFormat("tar", _pack_tar, _unpack_tar),
    "parquet": ShardFormat("parquet", _pack_parquet, _unpack_parquet),
}
