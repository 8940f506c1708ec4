from dataclasses import dataclass

from fusecomp._core.checks import are_strings, can_be_listed, ordered, shown


@dataclass(frozen=True, slots=True)
class Triplet:
    """One composed query: a reference image, one or more texts, and the target if it is known.

    Args:
        query_id: names the query; unique within a dataset.
        reference_id: the image that the texts modify.
        texts: what is different; the features of several texts are averaged. Lists become tuples.
        target_id: the image to find, or None where it is not public.
        group: the members of the query's subset (CIRR), each once, or None.
        other_target_ids: further images that are right answers (CIRCO), each once; training does
            not use them.

    Raises:
        TypeError: if an id is no string.
        ValueError: if texts or group are empty or no list of strings, the group or the right
            answers name an image twice, or there are others but no target.

    Example:
        >>> Triplet("dress/0", "B003FGW7MK", ("is solid black",), target_id="B008BHCT58").texts
        ('is solid black',)
    """

    query_id: str
    reference_id: str
    texts: tuple[str, ...]
    target_id: str | None = None
    group: tuple[str, ...] | None = None
    other_target_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        texts, target = self.texts, self.target_id
        names = self.query_id, self.reference_id, "" if target is None else target
        others = self.other_target_ids
        is_plain = self.group is None and type(others) is tuple and not others
        if is_plain and type(texts) is tuple and texts and are_strings(names + texts):
            return  # quickly, as nearly always: there may be hundreds of thousands of triplets
        self._set_tuple("texts", texts)
        if not are_strings(names):
            raise TypeError(
                f"the ids of a triplet must be strings, got {self!r:.300}; right answers "
                "beyond the target are other_target_ids"
            )
        if self.group is not None:
            self._set_tuple("group", self.group)
            self._require_once("group names", self.group)
        if can_be_listed(others) and len(others) == 0:
            object.__setattr__(self, "other_target_ids", ())
            return
        self._set_tuple("other_target_ids", others)
        if target is None:
            raise ValueError(
                f"query {self.query_id!r} has other_target_ids but no target_id; make one of them "
                "the target, which training uses"
            )
        self._require_once("its targets name", self.relevant_ids)

    def _require_once(self, naming: str, image_ids: tuple[str, ...]) -> None:
        if len({*image_ids}) < len(image_ids):
            twice = next(i for i in image_ids if image_ids.count(i) > 1)
            raise ValueError(f"query {self.query_id!r}: {naming} an image twice: {twice!r}")

    def _set_tuple(self, name: str, values: object) -> None:
        """Make a list a tuple, so that equal triplets are one key; refuse all but strings."""
        if type(values) is not tuple and can_be_listed(values):
            values = tuple(ordered(name, values, "strings"))
            object.__setattr__(self, name, values)
        if type(values) is not tuple or not values or not are_strings(values):
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

    @property
    def relevant_ids(self) -> tuple[str, ...]:
        """All right answers, the target first; empty where it is not known."""
        return () if self.target_id is None else (self.target_id, *self.other_target_ids)
