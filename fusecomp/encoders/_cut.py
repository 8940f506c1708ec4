import warnings
from collections.abc import Sequence

__all__ = ["CutWarning"]


class CutWarning:
    """Warns once, however often it is called, of texts that a tokenizer has cut."""

    def __init__(self) -> None:
        self._given = False

    def __call__(self, texts: Sequence[str]) -> None:
        """Warn, if there are such texts, and name the longest one."""
        if self._given or not texts:
            return
        self._given = True
        longest = max(texts, key=len)
        start = f"{longest[:80]!r}{'...' if len(longest) > 80 else ''}"
        warnings.warn(
            f"texts longer than the context of the model are cut, for example {start}",
            stacklevel=4,
        )
