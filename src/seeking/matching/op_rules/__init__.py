"""What operations do to axes: every module of this package registers the rules of some operations."""

import importlib
import pkgutil

from seeking.matching.op_rules.base import OP_RULES, OpCall, broadcast, mixed, op_rule, same_where_size_stays

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["OP_RULES", "OpCall", "broadcast", "mixed", "op_rule", "same_where_size_stays"]
