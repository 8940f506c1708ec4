from contextlib import suppress
from dataclasses import dataclass

from fusecomp._core.checks import can_be_listed, ordered, shown


@dataclass(frozen=True, slots=True)
class Triplet:
    """One composed query: a reference image, one or more texts, and the target if it is known.

    Args:
        query_id: names the query; unique within a dataset.
        reference_id: the image that the texts modify.
        texts: what is different; the features of several texts are averaged. Lists become tuples.
        target_id: the image to find, or None where it is not public.
        group: the members of the query's subset (CIRR), each once, or None.

    Raises:
        TypeError: if an id is no string.
        ValueError: if texts or group are empty or no list of strings, or the group names an image
            twice.

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
        self._set_tuple("texts", self.texts)
        if self.group is not None:
            self._set_tuple("group", self.group)
            if len({*self.group}) < len(self.group):
                twice = next(i for i in self.group if self.group.count(i) > 1)
                raise ValueError(f"query {self.query_id!r}: group names an image twice: {twice!r}")
        ids = (*self.image_ids, self.query_id)
        if not all(isinstance(name, str) for name in ids):
            raise TypeError(f"the ids of a triplet must be strings, got {self!r:.300}")

    def _set_tuple(self, name: str, values: object) -> None:
        """Make a list a tuple, so that equal triplets are one key; refuse all but strings."""
        if type(values) is not tuple and can_be_listed(values):
            values = tuple(ordered(name, values, "strings"))
            object.__setattr__(self, name, values)
        if type(values) is tuple and values:
            # Quicker than a look at each: there may be hundreds of thousands of triplets.
            with suppress(TypeError):
                "".join(values)
                return
        raise ValueError(
            f"query {self.query_id!r}: {name} must be a non-empty tuple of strings, "
            f"got {shown(values)}"
        )

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The reference, and the target if it is known."""
        if self.target_id is None:
            return (self.reference_id,)
        return self.reference_id, self.target_id
