"""The model card: the ``README.md`` of a saved model, in the form that model hubs read."""

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from fusecomp._core.files import open_atomic
from fusecomp._core.identity import hash_text

CARD = "README.md"
_HOME = "https://github.com/fusecomp/fusecomp"
_MARK = "<!-- Written by fusecomp, which replaces this file only while its text has the SHA-256 "
_MARKUP = re.compile(r"[\\`*_~\[\]<>#|&!$]")
_ABOUT = """\
A model for composed image retrieval: it makes one query of a reference image and a text that says
what should differ, and finds the images of a gallery that fit the query best.
It was made with [fusecomp]({home})."""
_USE = """\
## Use

Download this folder, then load it into an encoder that is made as for the training:

```python
import fusecomp as fc

encoder = ...  # {encoder}
{fusion}model = fc.ComposedEncoder.load("this/folder", {arguments})
query = model.encode_query(["reference.jpg"], ["is blue and sleeveless"])
```

`config.json` holds all settings of both parts, which loading compares."""


def plain(text: str) -> str:
    """Return a text of any content as one line that Markdown shows as it is."""
    seen = "".join(sign if sign.isprintable() else " " for sign in text)
    return _MARKUP.sub(r"\\\g<0>", " ".join(seen.split()))


def model_card(
    parts: Mapping[str, object],
    doc: str | None,
    sections: Iterable[str] = (),
    *,
    title: str = "",
    head: Mapping[str, object] | None = None,
) -> str:
    """Return the card of a model in Markdown, with a head in YAML.

    Args:
        parts: what ``config.json`` holds: ``encoder``, ``fusion``, ``arguments``, ``features``.
        doc: the docstring of the fusion's class.
        sections: further ones, in Markdown.
        title: the headline; by default the fusion's and the encoder's class.
        head: further keys of the head.
    """
    encoder, fusion = str(parts["encoder"]), str(parts["fusion"])
    tags = ["composed-image-retrieval", "image-retrieval", "fusecomp", fusion]
    keys = {"library_name": "fusecomp", "tags": tags, **(head or {})}
    lines = [f"{name}: {_yaml(value)}" for name, value in keys.items()]
    lines.append("# license: the one that you choose, such as mit")
    text = "\n\n".join(
        (
            "\n".join(["---", *lines, "---"]),
            f"# {plain(title) or f'{plain(fusion)} on {plain(encoder)}'}",
            _ABOUT.format(home=_HOME),
            _method(encoder, fusion, parts, doc),
            *sections,
            _use(parts),
        )
    )
    text += "\n\n"
    return f"{text}{_MARK}{hash_text(text)} -->\n"


def _yaml(value: object) -> str:
    """Return JSON that is YAML too, in ASCII: YAML has no pairs of half characters."""

    def escaped(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return re.sub(r"[^ -~]", escaped, json.dumps(value, ensure_ascii=False))


def _method(encoder: str, fusion: str, parts: Mapping[str, object], doc: str | None) -> str:
    arguments = parts["arguments"] if isinstance(parts["arguments"], Mapping) else {}
    settings = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    of_fusion = f"{fusion}({settings})" if settings else fusion
    rows = [f"| encoder | {plain(encoder)} |", f"| fusion | {plain(of_fusion)} |"]
    if parts["features"]:
        rows.append(f"| trained on the features of | {plain(str(parts['features']))} |")
    doc = inspect.cleandoc(doc or "")
    about = [plain(doc.partition("\n\n")[0])] if doc else []
    if found := re.search(r"^Reference:\n((?: {4}.*\n)+)", doc, re.MULTILINE):
        about.append(f"Reference: {plain(found[1])}")
    return "\n\n".join(["## Method", "\n".join(["| part | |", "| --- | --- |", *rows]), *about])


def _use(parts: Mapping[str, object]) -> str:
    live, rebuilt = parts["features"] is None, parts["arguments"] is not None
    encoder, fusion = (" ".join(str(parts[name]).split()) for name in ("encoder", "fusion"))
    return _USE.format(
        encoder=encoder if live else "the one whose features it was trained on",
        fusion="" if rebuilt else f"fusion = ...  # {fusion}\n",
        arguments="encoder" if rebuilt else "encoder, fusion",
    )


def write_card(folder: Path, card: str) -> None:
    """Write the card of a folder; what UTF-8 has no bytes for is spelled out."""
    with open_atomic(folder / CARD) as file:
        file.write(card.encode(errors="backslashreplace"))


def require_unedited(folder: Path) -> None:
    """Raise ValueError where the folder's card, if it has one, is not as it was written."""
    try:
        text = (folder / CARD).read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    content, _, digest = text.rpartition(_MARK)
    if digest.strip() != f"{hash_text(content)} -->":
        raise ValueError(
            f"{folder / CARD} was edited or is of somebody else, and would be replaced: move it "
            "away, and put your changes into the new one"
        )
