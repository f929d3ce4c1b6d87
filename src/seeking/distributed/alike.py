"""Whether all processes of a run have been given the same."""

from collections.abc import Mapping
from typing import Any

from accelerate.utils import gather_object

from seeking.errors import SeekingError


def check_alike(given: Mapping[str, Any], advice: str = "give all processes the same") -> None:
    """Check that all processes have been given the same; all of them must call this.

    Otherwise they would train different models, or wait for each other forever.

    Args:
        given: by name; what can be pickled and compared.
        advice: what to do if something differs.

    Raises:
        SeekingError: something differs.
    """
    first, *others = gather_object([dict(given)])
    for number, other in enumerate(others, start=1):
        for name in [*first, *(name for name in other if name not in first)]:
            values = first.get(name), other.get(name)
            if values[0] != values[1]:
                raise SeekingError(
                    f"{name} is {values[0]!r} in process 0 and {values[1]!r} in process {number}; {advice}"
                )
