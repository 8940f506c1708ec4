"""Datasets: ids, texts, paths and protocols; they open no picture. How pictures are opened, and
whether the files of a dataset are what they should be.
"""

from typing import TYPE_CHECKING

from fusecomp.lazy import lazily

if TYPE_CHECKING:
    from fusecomp.data._cirr import CIRR
    from fusecomp.data._cirr_submission import write_cirr_submission
    from fusecomp.data._fashioniq import FashionIQ
    from fusecomp.data._table import TripletTable
    from fusecomp.data._verify import verify
    from fusecomp.data._verify_report import VerifyReport
    from fusecomp.data._without import without
    from fusecomp.preprocessing import SquarePad, TargetPad, clip_transform
else:
    __getattr__ = lazily(
        __name__,
        {
            "CIRR": "fusecomp.data._cirr",
            "FashionIQ": "fusecomp.data._fashioniq",
            "SquarePad": "fusecomp.preprocessing",
            "TargetPad": "fusecomp.preprocessing",
            "TripletTable": "fusecomp.data._table",
            "VerifyReport": "fusecomp.data._verify_report",
            "clip_transform": "fusecomp.preprocessing",
            "verify": "fusecomp.data._verify",
            "without": "fusecomp.data._without",
            "write_cirr_submission": "fusecomp.data._cirr_submission",
        },
    )

__all__ = [
    "CIRR",
    "FashionIQ",
    "SquarePad",
    "TargetPad",
    "TripletTable",
    "VerifyReport",
    "clip_transform",
    "verify",
    "without",
    "write_cirr_submission",
]
