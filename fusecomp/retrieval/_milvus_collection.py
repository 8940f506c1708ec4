"""A collection of Milvus: its fields, what is written into it, and the errors of its client."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple

from torch import Tensor

from fusecomp._core.checks import require_choice
from fusecomp._core.files import bytes_of
from fusecomp._core.progress import progress
from fusecomp.retrieval._inner_products import Floats, unit_array

# Values that are written at once, and rows that are read at once: a server gives 16,384 at most.
_VALUES, _READ = 2**20, 10_000
_LONGEST_TEXT = 65_535
# What Milvus Lite makes of float vectors; it searches exactly where it is given another type.
_EMBEDDED = "AUTOINDEX", "BRUTE_FORCE", "FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8"
# How a string is written in an expression, where Milvus Lite does not know JSON's \\u.
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


class Images(NamedTuple):
    """Images at the positions from ``first``; a removed one has no name, values are encoded."""

    first: int
    names: Sequence[str | None]
    features: Tensor
    attributes: Mapping[str, Sequence[str]]

    def record(self, position: int) -> dict[str, Any]:
        """Return the fields of an image but the vector, with a digest of them and the features."""
        row = position - self.first
        values = {name: column[row] for name, column in self.attributes.items()}
        digest = blake2b(json.dumps([self.names[row], values]).encode(), digest_size=16)
        digest.update(bytes_of("features", self.features[row]).data)
        fields = {field(number): value for number, value in enumerate(values.values())}
        about = {"id": self.names[row], "position": position, "digest": digest.hexdigest()}
        return about | fields


def field(number: int) -> str:
    """Return the field of an attribute, whose own name may hold what Milvus cannot read."""
    return f"attribute_{number}"


@contextmanager
def answered(what: str) -> Iterator[None]:
    """Turn an error of the client into one that says what Milvus was asked for."""
    from pymilvus import MilvusException

    try:
        yield
    except MilvusException as error:
        raise RuntimeError(f"Milvus refuses {what}: {error.message}") from error


class MilvusCollection:
    """The collection of a name, as one client sees it."""

    def __init__(self, client: Any, name: str) -> None:
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            extra = 'MilvusIndex needs pymilvus: pip install "fusecomp[milvus]"'
            raise ImportError(extra) from error
        if not isinstance(client, MilvusClient):
            raise TypeError(f"client must be a pymilvus.MilvusClient, got {type(client).__name__}")
        self.client, self.name = client, name

    def open(self, width: int, attributes: Sequence[str], index: Mapping[str, Any]) -> None:
        """Make the collection, or check that it is of this width, attributes and index."""
        from pymilvus import DataType

        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        text = {"datatype": DataType.VARCHAR, "max_length": _LONGEST_TEXT}
        schema.add_field("id", is_primary=True, **text)
        schema.add_field("position", DataType.INT64)
        schema.add_field("digest", **text)
        for number, name in enumerate(attributes):
            schema.add_field(field(number), description=name, **text)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
        wanted = {"metric_type": "IP", **index}
        with answered(f"the collection {self.name!r}"):
            if self.client.get_server_version().startswith("milvus_lite"):
                require_choice("index_type of Milvus Lite", index["index_type"], _EMBEDDED)
            if not self.client.has_collection(self.name):
                self.client.create_collection(self.name, schema=schema, consistency_level="Strong")
            described = self.client.describe_collection(self.name), schema.to_dict()
            found, made = (
                {f["name"]: (f["type"], f.get("params", {}).get("dim")) for f in about["fields"]}
                for about in described
            )
            if found == made and not self.client.list_indexes(self.name, "vector"):
                indexes = self.client.prepare_index_params()
                indexes.add_index("vector", **wanted)
                self.client.create_index(self.name, indexes)
            known = self.client.describe_index(self.name, "vector") if found == made else {}
            if any(known.get(key) != wanted[key] for key in ("index_type", "metric_type")):
                raise ValueError(
                    f"the collection {self.name!r} has other fields or another index than "
                    f"{[*made]} and {wanted}: give another name, or drop the collection"
                )
            self.client.load_collection(self.name)

    def fill(self, images: Images) -> None:
        """Write the images that are not there yet; ValueError if others are in their places."""
        named = [row for row, name in enumerate(images.names, images.first) if name is not None]
        missing = self._missing(images, named)
        step = _VALUES // images.features.shape[1] + 1
        blocks = [missing[start : start + step] for start in range(0, len(missing), step)]
        if images.first:
            self._require_new(images, blocks)
        there, total = len(named) - len(missing), len(named)
        bar = progress(blocks, total, "filling Milvus", "images", per_item=step, start=there)
        for block in bar:
            vectors = unit_array(images.features[[row - images.first for row in block]])
            records = [
                images.record(position) | {"vector": vector}
                for position, vector in zip(block, vectors, strict=True)
            ]
            with answered(f"images from {records[0]['id']!r} to {records[-1]['id']!r}"):
                written = self.client.upsert(self.name, records)["upsert_count"]
            if written != len(records):
                raise RuntimeError(f"Milvus took {written} of {len(records)} images")
        if blocks:
            with answered("to flush"):
                self.client.flush(self.name)
        if (count := self.count(f"position >= {images.first}")) != total:
            raise RuntimeError(f"Milvus has {count} of {total} images that were written")

    def _missing(self, images: Images, named: Sequence[int]) -> list[int]:
        """Return the positions whose images are not there."""
        missing, left = dict.fromkeys(named), self.count(f"position >= {images.first}")
        for start in range(images.first, images.first + len(images.names), _READ) if left else ():
            some = f"position >= {start} and position < {start + _READ}"
            for row in self.query(some, ["position", "digest"]):
                position = row["position"]
                if position in missing and row["digest"] == images.record(position)["digest"]:
                    del missing[position]
                    left -= 1
        if left:
            raise ValueError(
                f"the collection {self.name!r} holds {left} images that differ from the gallery's: "
                "of another encoder, with other attributes or ids, or removed here. Give another "
                "name, or drop the collection"
            )
        return [*missing]

    def _require_new(self, images: Images, blocks: Sequence[Sequence[int]]) -> None:
        """Raise ValueError on an id of an earlier image, which would be written over."""
        for block in blocks:
            ids = [str(images.names[row - images.first]).translate(_ESCAPES) for row in block]
            quoted = ", ".join(f'"{name}"' for name in ids)
            for row in self.query(f"position < {images.first} and id in [{quoted}]", ["id"]):
                raise ValueError(
                    f"the image {row['id']!r} is in the collection {self.name!r} already: remove "
                    "it first, or give another id"
                )

    def query(self, expression: str, fields: Sequence[str]) -> list[dict[str, Any]]:
        """Return these fields of the images that an expression holds for."""
        with answered("to be read"):
            return [*self.client.query(self.name, filter=expression, output_fields=[*fields])]

    def count(self, expression: str) -> int:
        """Return the number of images that an expression holds for."""
        return int(self.query(expression, ["count(*)"])[0]["count(*)"])

    def delete(self, expression: str) -> None:
        """Delete images; RuntimeError if some stay."""
        with answered("to delete"):
            self.client.delete(self.name, filter=expression)
        if left := self.count(expression):
            raise RuntimeError(f"Milvus has kept {left} images that were to be removed")

    def search(
        self, unit: Floats, limit: int, expression: str, parameters: Mapping[str, Any]
    ) -> list[list[tuple[int, float]]]:
        """Return position and score of what is found for each query."""
        with answered(f"to search with the parameters {dict(parameters)}"):
            found = self.client.search(
                self.name,
                data=[*unit],
                anns_field="vector",
                limit=limit,
                filter=expression,
                output_fields=["position"],
                search_params={"metric_type": "IP", "params": dict(parameters)},
            )
        return [[(hit["entity"]["position"], hit["distance"]) for hit in hits] for hits in found]
