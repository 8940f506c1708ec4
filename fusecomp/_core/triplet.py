from dataclasses import dataclass
from typing import NoReturn

from fusecomp._core.checks import can_be_listed, ordered, shown


@dataclass(frozen=True, slots=True)
class Triplet:
    """One composed query: a reference image, one or more texts, and the target if it is known.

    Args:
        query_id: names the query; unique within a dataset.
        reference_id: the image that the texts modify.
        texts: what is different; the features of several texts are averaged. A list becomes a
            tuple, as any other list or array of strings does.
        target_id: the image to find, or None where it is not public.
        group: the members of the query's subset (CIRR), each once, or None. A list becomes a tuple.

    Raises:
        TypeError: if an id is no string.
        ValueError: if texts or group hold nothing, or anything but strings, such as lists of
            texts, or are a plain string; or if the group names an image twice.

    Example:
        >>> Triplet("dress/0", "B003FGW7MK", ("is solid black",), target_id="B008BHCT58").texts
        ('is solid black',)
    """

    query_id: str
    reference_id: str
    texts: tuple[str, ...]
    target_id: str | None = None
    group: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        texts, group, target_id = self.texts, self.group, self.target_id
        if type(texts) is not tuple:
            texts = self._tuple("texts", texts)
        if group is not None:
            if type(group) is not tuple:
                group = self._tuple("group", group)
            self._require_strings("group", group)
            if len({*group}) < len(group):
                twice = next(i for i in group if group.count(i) > 1)
                raise ValueError(f"query {self.query_id!r}: group names an image twice: {twice!r}")
        self._require_strings("texts", texts)
        if not (
            isinstance(self.query_id, str)
            and isinstance(self.reference_id, str)
            and (target_id is None or isinstance(target_id, str))
        ):
            raise TypeError(f"the ids of a triplet must be strings, got {self!r:.300}")

    def _tuple(self, name: str, values: object) -> tuple[str, ...]:
        """A list becomes a tuple, so that equal triplets are one key."""
        if not can_be_listed(values):
            self._refuse(name, values)
        listed = tuple(ordered(name, values, "strings"))
        object.__setattr__(self, name, listed)
        return listed

    def _require_strings(self, name: str, values: tuple[str, ...]) -> None:
        if not values:
            self._refuse(name, values)
        try:
            # Quicker than a look at each: there may be hundreds of thousands of triplets.
            "".join(values)
        except TypeError:
            self._refuse(name, values)

    def _refuse(self, name: str, values: object) -> NoReturn:
        raise ValueError(
            f"query {self.query_id!r}: {name} must be a non-empty tuple of strings, "
            f"got {shown(values)}"
        )

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The reference, and the target if it is known."""
        return (
            (self.reference_id,) if self.target_id is None else (self.reference_id, self.target_id)
        )
