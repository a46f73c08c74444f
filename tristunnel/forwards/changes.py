"""What is different between the forwards of a client and those that it gets."""

from __future__ import annotations

from collections.abc import Sequence

from tristunnel.forwards.forward import Forward

__all__ = ["differences", "matched"]

_WORDS = {
    "policy": "has new limits on visitors",
    "gate": "asks something else of visitors",
    "verification": "takes other signatures",
    "options": "has other options",
    "health": "has other options",
}


def differences(before: Forward, after: Forward) -> list[str]:
    """@return: What the server has to be told of a forward that stays, in words."""
    told = (
        words
        for what, words in _WORDS.items()
        if getattr(before, what) != getattr(after, what)
    )
    return list(dict.fromkeys(told))


def matched(
    before: Sequence[Forward], after: Sequence[Forward]
) -> list[tuple[Forward | None, Forward]]:
    """
    Find out which forward has become which.

    @param before: Those that were there.
    @param after: Those that are to be.
    @return: Each of C{after}, with the one that it was: the same text; else the
        same port or name; else, where any port will do, the same place in the
        list.
    """
    texts = {forward.spec: forward for forward in before}
    places = {forward.place: forward for forward in before if forward.isFixed}
    found = [
        texts.get(new.spec) or (places.get(new.place) if new.isFixed else None)
        for new in after
    ]
    taken = {id(old) for old in found if old is not None}
    for index, (old, new) in enumerate(zip(before, after, strict=False)):
        free = found[index] is None and id(old) not in taken
        if free and not new.isFixed and old.place == new.place:
            found[index] = old
    return list(zip(found, after, strict=True))
