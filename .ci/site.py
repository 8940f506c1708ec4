"""A hook of mkdocs and an extension of griffe, which mkdocs.yml names."""

import re
from typing import Any

import griffe


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the docstrings where docs/api.md names a module in a comment."""
    return re.sub(r"<!-- (::: \S+) -->", r"\1", markdown)


class Examples(griffe.Extension):
    """Show ``Example:`` of a docstring as griffe shows ``Examples:``, as code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.M
            )
