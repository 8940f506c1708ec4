"""The file of a gallery: parts that do not fit one another, under a checksum that is right."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fusecomp.retrieval import Gallery
from fusecomp.retrieval._gallery_file import GalleryFile, write_gallery

SIZE = 30
IDS = [f"image {number}" for number in range(SIZE)]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"features": torch.ones(SIZE)}, r"features must be \[N, D\] and not empty"),
        ({"features": torch.ones(SIZE, 2).long()}, "features must have a floating dtype"),
        ({"features": torch.ones(SIZE - 1, 2)}, r"lengths must be float64 \[29\], got"),
        ({"lengths": torch.ones(SIZE)}, "lengths must be float64"),
        ({"names": IDS[1:]}, "29 image_ids but 30 rows"),
        ({"names": [*IDS, "more"]}, "31 image_ids but 30 rows"),
        ({"names": [*IDS[1:], IDS[1]]}, "the image 'image 1' occurs twice"),
        ({"names": dict.fromkeys(IDS)}, "names must be a list of strings"),
        ({"names": [*range(SIZE)]}, "image_ids must be a list of strings"),
        ({"names": "image"}, "names must be a list of strings"),
        ({"attributes": {"year": [1]}}, "the attribute 'year' has 1 values for 30 images"),
        ({"attributes": ["year"]}, "attributes must be a mapping from names"),
    ],
)
def test_parts_that_do_not_fit_are_named_with_the_file(
    tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    path, lengths = tmp_path / "gallery", torch.ones(SIZE, dtype=torch.float64)
    good = GalleryFile(IDS, {}, "key", torch.eye(SIZE), lengths)
    write_gallery(path, good)
    Gallery.load(path)
    write_gallery(path, good._replace(**changed))
    with pytest.raises(ValueError, match=rf"{path} is torn or no gallery \({reason}"):
        Gallery.load(path)
