"""What the fields of a class mean: the strings below them in its source."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def meanings(owner: type) -> Mapping[str, str]:
    """Return what each field of *owner* means, on one line; a field without a string is absent."""
    found = re.findall(
        r'^    (\w+): [^\n]*\n    """(.*?)"""', inspect.getsource(owner), re.M | re.S
    )
    return {name: " ".join(text.split()) for name, text in found}
