import subprocess
import sys

import pytest

import fusecomp.data
import fusecomp.encoders


def test_a_lazy_name_is_the_one_of_its_file() -> None:
    from fusecomp.encoders._open_clip import OpenClipEncoder

    assert fusecomp.encoders.OpenClipEncoder is OpenClipEncoder


def test_lazy_names_are_listed() -> None:
    assert {"FashionIQ", "CIRR", "__name__"} <= set(dir(fusecomp.data))


def test_an_unknown_name_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'fusecomp.encoders' has no attribute 'Clip'"):
        fusecomp.encoders.Clip  # type: ignore[attr-defined]  # noqa: B018


def test_a_lazy_file_is_loaded_when_it_is_used() -> None:
    code = (
        "import sys, fusecomp.encoders; name = 'fusecomp.encoders._open_clip'; "
        "print(name in sys.modules); fusecomp.encoders.OpenClipEncoder; print(name in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]
