"""Make docs/api.md, one line for each public name: `python tests/helpers/api_page.py`."""

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import fusecomp

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
MODULES = (
    *("model", "fusions", "losses", "encoders", "images", "datasets", "caching", "training"),
    *("training.presets", "evaluation", "report", "retrieval", "types", "distributed"),
)
# Values have no docstring.
VALUES = {
    "ABSENT": "The mark of a file that is not there.",
    "By": "How files are told apart: by `size` or by `content`.",
    "CVPRW2022": "Published: the text encoder is tuned, then a Combiner trained.",
    "Encode": "The type of an encoder's side: inputs to features [B, D].",
    "EncodeTokens": "The same of a side that gives tokens: inputs to features and `Tokens`.",
    "FUSION_KEYWORDS": "What a fusion gets if it names it.",
    "Find": "The type of a lookup: names to row numbers, int64 [B].",
    "LOSS_KEYWORDS": "What a loss gets if it names it.",
    "LoadImage": "The type of `load_image`: a path to a tensor.",
    "ON_ERROR": "What happens at an image that cannot be read: `raise` or `skip`.",
    "RECOMMENDED": "Our advice, with its loss: [Recipes](recipes.md) tells what it gains.",
    "SIDES": "The sides of an encoder: `image` and `text`.",
    "Similarity": "The type of a fusion's own similarity: [Q, E] and [N, D] to [Q, N].",
    "TOMM2023": "Published: both encoders are tuned, then a Combiner trained.",
    "User": "The type of a simulated user: the ids shown and the target to a `Reply`.",
}
START = """# API

One line for each public name: the first one of its docstring. On the site each section goes on with
the whole docstrings: arguments, shapes, errors, the source, an example that runs. In Python,
`help(fusecomp.Combiner)` prints the same. A clone shows the site at http://127.0.0.1:8000, with pip
25.1 or newer:

```sh
pip install -c constraints.txt -e . --group docs && mkdocs serve
```

{top}
"""


def public_names(module: ModuleType) -> list[str]:
    """Return a module's `__all__`, or its own functions and classes."""
    own = [name for name, value in vars(module).items() if inspect.getmodule(value) is module]
    return list(getattr(module, "__all__", (name for name in own if not name.startswith("_"))))


def as_line(docstring: str) -> str:
    """Return a docstring's first paragraph as a cell of Markdown."""
    line = " ".join(docstring.strip().split("\n\n")[0].split())
    return line.replace("``", "`").replace("|", r"\|")


def as_page() -> str:
    """Return the page."""
    top = (
        f"The most used names are also at the top, as `fusecomp.Combiner` is: {', '.join(_top())}."
    )
    start = START.format(top=textwrap.fill(top, 105))
    return "\n".join((start, *map(_section, MODULES)))


def _top() -> Iterator[str]:
    for name in fusecomp.__all__:
        if not inspect.ismodule(getattr(fusecomp, name)):
            yield f"`{name}`"


def _section(name: str) -> str:
    module = importlib.import_module(f"fusecomp.{name}")
    rows = [f"| `{public}` | {_line(module, public)} |" for public in public_names(module)]
    table = "\n".join(("| name | |", "| --- | --- |", *rows))
    # A comment, as the site alone knows what to do with it: .ci/site.py.
    return (
        f"## fusecomp.{name}\n\n{as_line(module.__doc__ or '')}\n\n{table}\n\n"
        f"<!-- ::: fusecomp.{name} -->\n"
    )


def _line(module: ModuleType, name: str) -> str:
    value = getattr(module, name)
    documented = inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value)
    return as_line(value.__doc__ or "") if documented else VALUES[name]


if __name__ == "__main__":
    PAGE.write_text(as_page(), "utf-8")
