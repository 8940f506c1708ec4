"""Datasets: ids, texts, paths and protocols. They open no picture."""

from fusecomp.data._fashioniq import FashionIQ

__all__ = ["FashionIQ"]
