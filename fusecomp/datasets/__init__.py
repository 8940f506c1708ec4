"""Datasets: ids, texts, paths and protocols; they open no image."""

from fusecomp.datasets._cirr import CIRR
from fusecomp.datasets._drop_images import drop_images
from fusecomp.datasets._fashioniq import FashionIQ
from fusecomp.datasets._table import TripletTable
from fusecomp.datasets._verify import verify
from fusecomp.datasets._verify_report import VerifyReport

__all__ = ["CIRR", "FashionIQ", "TripletTable", "VerifyReport", "drop_images", "verify"]
