"""Datasets: ids, texts, paths and protocols; they open no image."""

from fusecomp.datasets._circo import CIRCO
from fusecomp.datasets._cirr import CIRR
from fusecomp.datasets._drop_images import drop_images
from fusecomp.datasets._fashioniq import FashionIQ
from fusecomp.datasets._multi_turn import MultiTurnFashionIQ
from fusecomp.datasets._split_by_group import split_by_group
from fusecomp.datasets._table import TripletTable
from fusecomp.datasets._triplets import Triplets
from fusecomp.datasets._verify_report import Finding, VerifyReport

__all__ = [
    "CIRCO",
    "CIRR",
    "FashionIQ",
    "Finding",
    "MultiTurnFashionIQ",
    "TripletTable",
    "Triplets",
    "VerifyReport",
    "drop_images",
    "split_by_group",
]
