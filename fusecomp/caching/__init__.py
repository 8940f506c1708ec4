"""Features computed once, and looked up by image id and by text."""

from fusecomp.caching._cached import CachedEncoder
from fusecomp.caching._feature_table import FeatureTable
from fusecomp.caching._partly_cached import PartlyCachedEncoder

__all__ = ["CachedEncoder", "FeatureTable", "PartlyCachedEncoder"]
