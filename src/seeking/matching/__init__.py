"""How a weights map is derived from two modules."""

from seeking.errors import MatchWarning
from seeking.matching.match import match
from seeking.matching.module_rules import Factor, rule
from seeking.matching.overrides import Override

__all__ = ["Factor", "MatchWarning", "Override", "match", "rule"]
