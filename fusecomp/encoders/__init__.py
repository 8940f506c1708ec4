"""Encoders: images and texts in, features out.

An encoder is any object with ``encode_image`` and ``encode_text``.
"""

from fusecomp.encoders._dual import DualEncoder
from fusecomp.encoders._open_clip import OpenClipEncoder
from fusecomp.encoders._sentence_transformers import SentenceTransformersText
from fusecomp.encoders._transformers import TransformersEncoder

__all__ = ["DualEncoder", "OpenClipEncoder", "SentenceTransformersText", "TransformersEncoder"]
