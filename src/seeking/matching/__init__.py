"""How a weights map is derived from two modules."""

from seeking.matching.derive import MatchWarning, Override, match
from seeking.matching.rules import Factor, rule

__all__ = ["Factor", "MatchWarning", "Override", "match", "rule"]
