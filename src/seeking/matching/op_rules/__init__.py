"""What operations do to axes: every module of this package registers the rules of some operations."""

from seeking.matching.op_rules.base import OP_RULES, OpCall, broadcast, mixed, op_rule, same_where_size_stays
from seeking.plugins import modules_of

modules_of(__name__)

__all__ = ["OP_RULES", "OpCall", "broadcast", "mixed", "op_rule", "same_where_size_stays"]
