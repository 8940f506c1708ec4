"""Datasets: ids, texts, paths and protocols; they open no picture. And how pictures are opened."""

from typing import TYPE_CHECKING

from fusecomp.data._fashioniq import FashionIQ
from fusecomp.lazy import lazily

if TYPE_CHECKING:
    from fusecomp.data._table import TripletTable
    from fusecomp.pictures import SquarePad, TargetPad, clip_transform
else:
    __getattr__ = lazily(
        __name__,
        {
            "SquarePad": "fusecomp.pictures",
            "TargetPad": "fusecomp.pictures",
            "TripletTable": "fusecomp.data._table",
            "clip_transform": "fusecomp.pictures",
        },
    )

__all__ = ["FashionIQ", "SquarePad", "TargetPad", "TripletTable", "clip_transform"]
