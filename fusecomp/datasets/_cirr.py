from collections.abc import Mapping
from pathlib import Path

from fusecomp._core.checks import as_path, as_text, require_choice
from fusecomp.datasets._alike import warn_of_missing_words
from fusecomp.datasets._cirr_files import (
    annotation_files,
    find_folders,
    inspect,
    pair_problems,
    read_files,
    read_pairs,
)
from fusecomp.datasets._entries import raise_first, unlisted
from fusecomp.datasets._triplets import Triplets
from fusecomp.datasets._verify import make_report
from fusecomp.datasets._verify_report import VerifyReport

_SPLITS = ("train", "val", "test1")


class CIRR(Triplets):
    """CIRR (rc2) in either published folder layout; opens no image.

    ``root`` holds ``cirr/captions/cap.rc2.SPLIT.json``, ``cirr/image_splits/split.rc2.SPLIT.json``
    and the images in train, dev and test1 (CLIP4Cir); or ``captions`` and ``image_splits``
    themselves, with the images next to them or in ``img_raw`` (the annotations' own branch).

    One task without a name ranks every image of the split but the query's reference, with R@1, 5,
    10 and 50, and also the other five images of the query's group. Query ids are the pair ids.

    Reference:
        Liu, Rodriguez-Opazo, Teney, Gould, "Image Retrieval on Real-life Images with Pre-trained
        Vision-and-Language Models", ICCV 2021, https://arxiv.org/abs/2108.04024.

    Args:
        root: the folder.
        split: ``"train"``, ``"val"`` or ``"test1"`` (whose targets only the server knows).
        name: the dataset's name in the protocol, for other datasets of this layout.

    Raises:
        TypeError: if root is no path, or name no string.
        FileNotFoundError: if an annotation file is missing.
        ValueError: on an unknown split, a broken annotation file, or an image or file name that
            leads out of the folder; the message names the pair or image.

    Warns:
        UserWarning: if captions are words such as ``"nan"``, which programs print for missing ones.

    Example:
        >>> import tempfile
        >>> from fusecomp._core.strict_json import write_json
        >>> root, ids = Path(tempfile.mkdtemp()), [f"dev-0-{n}-img0" for n in range(6)]
        >>> files = {name: f"./dev/{name}.png" for name in ids}
        >>> write_json(root / "image_splits/split.rc2.val.json", files)
        >>> pair = {"pairid": 7, "reference": ids[0], "target_hard": ids[1], "caption": "two dogs"}
        >>> write_json(root / "captions/cap.rc2.val.json", [pair | {"img_set": {"members": ids}}])
        >>> data = CIRR(root, split="val")
        >>> data.triplets()[0].query_id, data.path(ids[1]).relative_to(root).as_posix()
        ('7', 'dev/dev-0-1-img0.png')
    """

    def __init__(self, root: str | Path, split: str, name: str = "CIRR") -> None:
        self.split = split = require_choice("split", split, _SPLITS)
        self.root = as_path("root", root)
        name = as_text("name", name)
        annotations, image_folder = find_folders(self.root)
        split_path, captions = annotation_files(annotations, split)
        files = read_files(split_path)
        pairs = read_pairs(captions, split)
        if not pairs:
            raise ValueError(f"{captions} holds no pairs; fetch it again")
        missing = unlisted(pairs, files)
        why = f"is not in {split_path}; fetch both files again"
        raise_first(captions, ((pair, f"image {image_id!r} {why}") for pair, image_id in missing))
        raise_first(captions, pair_problems(pairs))
        super().__init__(
            [pair.triplet() for pair in pairs],
            {image_id: image_folder / file for image_id, file in files.items()},
            gallery=list(files),
            name=name,
        )
        warn_of_missing_words(
            (f"{captions}, {pair.where}: the caption", pair.texts[0]) for pair in pairs
        )

    @classmethod
    def verify(
        cls, root: str | Path, *, decode: bool = False, num_workers: int | None = None
    ) -> VerifyReport:
        """List all that is wrong with a folder; reading a split raises the first of it.

        Args:
            root: the folder; it may hold the annotations alone.
            decode: read every pixel too, as ``FashionIQ.verify``.
            num_workers: threads; None chooses by the number of cores.

        Raises:
            FileNotFoundError: if CIRR is not there.
            ValueError: if an annotation file cannot be read.
            ImportError: if Pillow is missing.
        """
        return make_report(as_path("root", root), inspect, decode, num_workers)

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options that make scores comparable or not."""
        options = {"split": self.split, "gallery": "split", "reference": "excluded"}
        return {"dataset": self.name, **options}

    def __repr__(self) -> str:
        return f"CIRR({str(self.root)!r}, {self.split!r}, {len(self)} triplets)"
