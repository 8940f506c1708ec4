"""A hook of mkdocs and an extension of griffe, which mkdocs.yml names."""

import re
from typing import Any

import griffe


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the docstrings where docs/api.md names a module in a comment."""
    return re.sub(r"<!-- (::: \S+) -->", r"\1", markdown)


class AsMarkdown(griffe.Extension):
    """Show ``Example:`` of a docstring as code, and the ``::`` before a formula as ``:``."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
