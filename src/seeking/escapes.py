"""Text whose control characters are escaped, wherever it is shown."""

import re

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tabs and line ends, marks that reverse the direction of text, and bytes that are no text."""


def printable(text: object) -> str:
    """Text with control characters as escapes, so that names from files cannot control the terminal."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), str(text))
