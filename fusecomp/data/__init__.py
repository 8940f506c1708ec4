"""Datasets: ids, texts, paths and protocols; they open no picture. And how pictures are opened."""

from fusecomp.data._fashioniq import FashionIQ
from fusecomp.data._table import TripletTable
from fusecomp.pictures import SquarePad, TargetPad, clip_transform

__all__ = ["FashionIQ", "SquarePad", "TargetPad", "TripletTable", "clip_transform"]
