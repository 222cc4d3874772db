"""The two shard formats, WebDataset and Parquet: images with their categories to the bytes of one file, and back.

The same images give the same bytes at any time. Parquet needs pyarrow.
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
    """The file ending of a format and its functions."""

    ending: str
    # The flag: whether any example of the dataset has a hint; every shard then has a column for hints.
    pack: Callable[[Packed, bool], bytes]
    # Yields (image id, bytes); any input yields images or raises one of the errors that `unpack` catches.
    unpack: Callable[[bytes], Iterator[tuple[str, bytes]]]


def unpack(kind: "Format", content: bytes) -> dict[str, bytes]:
    """Return a shard's images by image id; ValueError where the bytes are not a shard of this format."""
    try:
        return dict(FORMATS[kind].unpack(content))
    except (tarfile.TarError, OSError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a {kind} shard: {error}") from error


def _pack_tar(packed: Packed, _has_hints: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for one, content in packed:
            # WebDataset keys end at the first dot. File names may hold dots, image ids do not.
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
    has_products = any(one.product for one, _ in packed)
    texts = ("category", "image_id", "product_id", *["hint"][: int(has_hints)], *["product"][: int(has_products)])
    features = {
        "image": {"_type": "Image"},
        **{name: {"dtype": "string", "_type": "Value"} for name in texts},
    }
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema(
        [("image", image), *((name, arrow.string()) for name in texts)],
        # `datasets` reads the column types from here.
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
    # Compression does not make JPEGs smaller.
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
