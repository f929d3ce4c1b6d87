"""Operations that keep each entry in its place, though PyTorch does not tag them as pointwise."""

from seeking.matching.axes import free
from seeking.matching.op_rules.base import Axes, OpCall, broadcast, op_rule

COPIES = ["_to_copy", "alias", "as_strided_", "copy", "detach", "lift", "lift_fresh"]
FILLED = ["empty_like", "fill", "full_like", "ones_like", "zero", "zeros_like"]
RANDOM = ["bernoulli", "exponential", "native_dropout", "normal", "rand_like", "randint_like"]
RANDOM += ["randn_like", "random", "rrelu_with_noise", "uniform"]
COMPLEX = ["_conj", "complex", "imag", "polar", "real"]
FUNCTIONS = ["_prelu_kernel", "floor_divide", "hardswish", "log_sigmoid_forward"]
TRIANGLES = ["tril", "triu"]

op_rule(*COPIES, *FILLED, *RANDOM, *COMPLEX, *FUNCTIONS, *TRIANGLES)(broadcast)


@op_rule("new_empty", "new_full", "new_ones", "new_zeros")
def _new(call: OpCall) -> Axes:
    """Only the type is the tensor's: a size that it has, too, may have it by chance."""
    return [[free(size) for size in output.shape] for output in call.outputs]
