"""YAML files, read safely."""

import re
from pathlib import Path
from typing import Any

import yaml

from seeking.errors import SeekingError


class Yaml(yaml.SafeLoader):
    """Safe, and with true and false as the only booleans, as in YAML 1.2: ``on`` and ``no`` are words."""


Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|True|false|False)$"), list("tTfF"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping, safely.

    Raises:
        SeekingError: the file cannot be read, or holds something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Yaml)
    except OSError as error:
        raise SeekingError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SeekingError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise SeekingError(f"{path}: a mapping is expected, found {type(content).__name__}")
    return content
