"""Encoders: pictures and texts in, features of one width out.

An encoder is any object with ``encode_image`` and ``encode_text``.
"""

from typing import TYPE_CHECKING

from fusecomp.encoders._cached import CachedEncoder
from fusecomp.encoders._dual import DualEncoder
from fusecomp.encoders._partly_cached import PartlyCachedEncoder
from fusecomp.lazy import lazily

if TYPE_CHECKING:
    from fusecomp.encoders._open_clip import OpenClipEncoder
    from fusecomp.encoders._sentence_transformers import SentenceTransformersText
    from fusecomp.encoders._transformers import TransformersEncoder
else:
    __getattr__ = lazily(
        __name__,
        {
            "OpenClipEncoder": "fusecomp.encoders._open_clip",
            "SentenceTransformersText": "fusecomp.encoders._sentence_transformers",
            "TransformersEncoder": "fusecomp.encoders._transformers",
        },
    )

__all__ = [
    "CachedEncoder",
    "DualEncoder",
    "OpenClipEncoder",
    "PartlyCachedEncoder",
    "SentenceTransformersText",
    "TransformersEncoder",
]
