from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from fusecomp._core.abilities import image_loader, lookups_of
from fusecomp._core.checks import whole_number
from fusecomp._core.devices import device_of, inference
from fusecomp._core.progress import progress
from fusecomp._core.tensors import check_dtype, check_features, widen
from fusecomp.images import load_available, require_files
from fusecomp.types import Encoder


def encode_images(
    encoder: Encoder,
    names: list[str],
    path: Callable[[str], Path] | None,
    batch_size: int,
    dtype: torch.dtype | None,
) -> Tensor:
    """Return the features of images, looked up or loaded, ``batch_size`` at once."""
    size = whole_number("batch_size", batch_size, 1)
    check_dtype(dtype)
    if not names:
        raise ValueError("image_ids must name an image at least")
    with inference(encoder):
        blocks = [
            widen(check_features(encoder.encode_image(images), "what encode_image returns"))
            for images in _inputs(encoder, names, path, size)
        ]
    return torch.cat([block.to(dtype) for block in blocks])


def _inputs(
    encoder: Encoder,
    names: list[str],
    path: Callable[[str], Path] | None,
    size: int,
) -> Iterator[Tensor]:
    """Yield the batches as ``encode_image`` takes them, with a bar where images are loaded."""
    batches = [names[start : start + size] for start in range(0, len(names), size)]
    look_up, device = lookups_of(encoder).get("image"), device_of(encoder)
    if look_up is not None:
        yield from (look_up(batch).to(device) for batch in batches)
        return
    load_image = image_loader(encoder)
    if load_image is None or path is None:
        missing = "no load_image" if load_image is None else "no features by id: pass path="
        raise ValueError(f"{type(encoder).__name__} has {missing}")
    paths = {name: Path(path(name)) for name in names}
    require_files([*paths.values()])
    loaded = load_available(paths, load_image, batches, device=device, on_error="raise")
    for block in progress(loaded, len(names), "encoding images", "images", per_item=size):
        if block.images is not None:
            yield block.images.to(device)


def of_one_encoder(key: str, other: str) -> bool:
    """Whether two keys differ at most in how features were kept: half precision, for example."""
    short, long = sorted((key, other), key=len)
    return long == short or (long.startswith(short) and long[len(short)] in ",;")
