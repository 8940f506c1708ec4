"""Images: opened, loaded in worker processes, and turned into tensors as published."""

from fusecomp.images._files import ABSENT, By, changed_image, file_marks, image_paths
from fusecomp.images._given import load_given
from fusecomp.images._loading import ON_ERROR, ImageError, load_available, load_few, require_files
from fusecomp.images._opening import ImageLoader, open_image, require_pillow, rgb, why_unreadable
from fusecomp.images._transforms import SquarePad, TargetPad, clip_transform

__all__ = [
    "ABSENT",
    "ON_ERROR",
    "By",
    "ImageError",
    "ImageLoader",
    "SquarePad",
    "TargetPad",
    "changed_image",
    "clip_transform",
    "file_marks",
    "image_paths",
    "load_available",
    "load_few",
    "load_given",
    "open_image",
    "require_files",
    "require_pillow",
    "rgb",
    "why_unreadable",
]
