"""The tensors that two models share: tied where a base tensor is the whole of its target, copied where it is a part."""

import sys
import warnings
from collections.abc import Hashable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from seeking.errors import RunWarning, SeekingError
from seeking.internals import child_modules, foreach_copy, own_tensor, versions
from seeking.shared_state import block_views
from seeking.supported import check_fits, check_registered
from seeking.weights_map import Entry, identity, tensors

MAX_BLOCKS = 32
"""An entry of more blocks than this is copied by index instead of block by block."""


class SharedTensors:
    """The parameters and buffers that a base and a motivated model share.

    They are tied at once. What is sliced is copied into the motivated model by ``enter`` and back by ``leave``.

    Args:
        base: the smaller model.
        motivated: the larger model.
        entries: of the map, by name of the shared base tensor.
        tie: whether tensors that are the whole of their target are tied.

    Raises:
        SeekingError: a tensor does not fit its entry, or is no longer its model's.
    """

    def __init__(self, base: nn.Module, motivated: nn.Module, entries: Mapping[str, Entry], tie: bool) -> None:
        self._base, self._motivated, self._entries, self._tie = base, motivated, entries, tie
        self._modules = [*base.modules(), *motivated.modules()]
        self._children = child_modules(self._modules)
        modules = [dict(model.named_modules(remove_duplicate=False)) for model in (base, motivated)]
        self._owned = [
            (*_owner(modules[0], name), *_owner(modules[1], entry.target), entry) for name, entry in entries.items()
        ]
        self._twins = _twins(motivated, {entry.target for entry in entries.values()})
        self.sharded = False
        """Whether the models were sharded when they were entered last."""
        self._bound: list[int] = []
        """Addresses of all tensors as they were bound."""
        self._targets: list[int] = []
        """Those of the motivated model's alone, by which it is seen that a forward has replaced one."""
        self._shared: list[Tensor] = []
        """The base's tensors, or shards of them."""
        self._sliced: list[Tensor] = []
        """Those of them that are copied."""
        self._sliced_targets: list[Tensor] = []
        self._views: tuple[list[Tensor], list[Tensor]] = [], []
        """Their blocks in the base and in the motivated model."""
        self._indexed: list[tuple[Tensor, Tensor, tuple[Tensor, ...]]] = []
        """Those of too many blocks, with the index of the base's entries."""
        self._entered_versions: list[int] = []
        """Of what is sliced, in the base."""
        self._left_versions: list[int] | None = None
        """Of what is sliced, in the motivated model; None if it may have changed since."""
        self._bound_squares: list[Tensor] = []
        self._bind()

    def __str__(self) -> str:
        tied = sum(self._tied(entry) for entry in self._entries.values())
        return f"{tied} tensor{'s' * (tied != 1)} tied, {len(self._entries) - tied} copied"

    def _tied(self, entry: Entry) -> bool:
        return self._tie and entry.whole

    def enter(self) -> None:
        """Give the motivated model the base's weights.

        Raises:
            SeekingError: the models are on different devices or of different dtypes, or a module was replaced.
        """
        self._bind()
        self._warn_of_lost_changes()
        self._copy(into_motivated=True)
        self._entered_versions = versions(self._sliced)

    def leave(self) -> None:
        """Give the base the weights of the motivated model.

        Raises:
            SeekingError: a forward of the motivated model has changed the shape of a tensor.
        """
        if versions(self._sliced) != self._entered_versions:
            warnings.warn(
                "the base was changed inside motivated(), where the motivated model holds the shared weights; what "
                "is sliced loses that change. Change the base outside",
                RunWarning,
                stacklevel=4,
            )
        if self.sharded:  # What one model has gathered is out of date when the other has taken a step.
            from seeking.distributed.sharding import reshard

            reshard(self._base, self._motivated)
        self._copy(into_motivated=False)
        self._copy_replaced()
        self._left_versions = versions(self._sliced_targets)
        self._bound_squares = []
        # A graph of the base that is older than this step must not be used for a backward pass any more.
        torch.autograd.graph.increment_version(self._shared)

    def allow_changes(self) -> None:
        """Do not warn of what changes the motivated model before it is entered next, such as loading it."""
        self._left_versions = None

    def part(self) -> None:
        """Give the motivated model copies of what is tied."""
        copies: dict[Hashable, Tensor] = {}
        for small, name, large, target, _ in self._owned:
            source, tied = own_tensor(small, name), own_tensor(large, target)
            if identity(source) == identity(tied):
                tied.data = copies.setdefault(identity(source), source.data.clone())
        self._follow()

    def _bind(self) -> None:
        """Tie what is whole and take views of what is sliced, anew whenever a tensor has moved."""
        if child_modules(self._modules) != self._children:
            raise SeekingError("a module of the models was replaced after they were paired; make a new Pair")
        shards, both = self._current()
        self._shared = [*shards, *(source for source, _, _ in both)]
        if _addresses(both) == self._bound:
            return
        check_registered(self._base, "base", self._entries)
        check_registered(self._motivated, "motivated model", [entry.target for entry in self._entries.values()])
        self._tie_and_slice(both)
        self._follow()
        self._targets = [] if shards else [target.data_ptr() for _, target, _ in both]
        self._bound = _addresses(both)

    def _current(self) -> tuple[list[Tensor], list[tuple[Tensor, Tensor, Entry]]]:
        """The tensors as they are now: shards of the base, which are tied already, and both models' other ones."""
        over: tuple[Mapping[Any, Any], Mapping[Any, Any]] = {}, {}
        if "torch.distributed.fsdp" in sys.modules:  # Slow to import, and nothing is sharded without it.
            from seeking.distributed.sharding import reshard, sharded_parameters, tie_shards

            over = sharded_parameters(self._base), sharded_parameters(self._motivated)
            self.sharded = bool(over[0] or over[1])
            if self.sharded:
                reshard(self._base, self._motivated)
        shards, both = [], []
        for small, name, large, target_name, entry in self._owned:
            if (small, name) in over[0] or (large, target_name) in over[1]:
                shards.append(tie_shards(*over, (small, name), (large, target_name), entry))
            else:
                both.append((own_tensor(small, name), own_tensor(large, target_name), entry))
        return shards, both

    def _tie_and_slice(self, both: Sequence[tuple[Tensor, Tensor, Entry]]) -> None:
        self._views, self._indexed = ([], []), []
        self._sliced = [source for source, _, entry in both if not self._tied(entry)]
        self._sliced_targets = [target for _, target, entry in both if not self._tied(entry)]
        self._left_versions = versions(self._sliced_targets)
        self._bound_squares = _squares(self._sliced_targets)
        for source, target, entry in both:
            check_fits(source, target, entry)
            if self._tied(entry):
                target.data = source.data
            elif entry.block_count() <= MAX_BLOCKS:
                pairs = block_views(source, target, entry)
                self._views[0].extend(view for view, _ in pairs)
                self._views[1].extend(view for _, view in pairs)
            else:
                self._indexed.append((source.data, target.data, entry.mesh(target.device)))

    def _warn_of_lost_changes(self) -> None:
        """Warn if the base's part of the motivated model was changed since it was left: that is overwritten."""
        if self._left_versions is None or versions(self._sliced_targets) == self._left_versions:
            return
        pairs = zip(*self._views, strict=True)
        if all(torch.equal(*views) for views in pairs) and all(
            torch.equal(small, large[mesh]) for small, large, mesh in self._indexed
        ):
            return  # Both models were loaded, for one.
        if self._bound_squares and all(map(torch.equal, self._bound_squares, _squares(self._sliced_targets))):
            return  # Written anew with what they held: DDP sends them to all processes when it wraps the model.
        warnings.warn(
            "the motivated model was changed outside motivated(), where the base holds the shared weights; what is "
            "sliced loses that change. Train the motivated model inside. If both models were loaded, nothing is lost",
            RunWarning,
            stacklevel=5,
        )

    def _follow(self) -> None:
        """Keep what extra blocks share with the base's part, whatever storage that has now."""
        for module, name, large, target in self._twins:
            own_tensor(module, name).data = own_tensor(large, target).data

    def _copy(self, *, into_motivated: bool) -> None:
        source, target = self._views
        if source:
            foreach_copy(*((target, source) if into_motivated else (source, target)))
        for small, large, mesh in self._indexed:
            if into_motivated:
                large[mesh] = small
            else:
                small.copy_(large[mesh])

    def _copy_replaced(self) -> None:
        """Carry back buffers that the motivated model's forward has replaced by others."""
        for (small, name, large, target_name, entry), bound in zip(self._owned, self._targets, strict=False):
            target = own_tensor(large, target_name)
            if target.data_ptr() == bound:
                continue
            if tuple(target.shape) != entry.target_shape:
                raise SeekingError(
                    f"{entry.target}: its shape in the motivated model is {list(target.shape)} after a forward, where "
                    f"the map has {list(entry.target_shape)}; run one forward of both models first, then match and "
                    "pair them"
                )
            own_tensor(small, name).copy_(target[entry.mesh(target.device)])


def _twins(model: nn.Module, mapped: Set[str]) -> list[tuple[nn.Module, str, nn.Module, str]]:
    """The tensors that are others than mapped ones, but lie in the same place, each with its mapped one."""
    everything, modules = tensors(model), dict(model.named_modules(remove_duplicate=False))
    objects = {id(everything[name]) for name in mapped}
    places = {identity(everything[name]): name for name in mapped}
    return [
        (*_owner(modules, name), *_owner(modules, places[identity(tensor)]))
        for name, tensor in everything.items()
        if id(tensor) not in objects and identity(tensor) in places
    ]


def _addresses(both: Sequence[tuple[Tensor, Tensor, Entry]]) -> list[int]:
    return [tensor.data_ptr() for source, target, _ in both for tensor in (source, target)]


@torch.no_grad()
def _squares(values: Sequence[Tensor]) -> list[Tensor]:
    """A number for each tensor that a change of it changes; a plain sum is the same after a step of cross-entropy."""
    # In float16 it would overflow, and in bfloat16 round small changes away.
    wide = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in values)
    return [(tensor * tensor).sum() for tensor in wide]


def _owner(modules: Mapping[str, nn.Module], name: str) -> tuple[nn.Module, str]:
    module, _, leaf = name.rpartition(".")
    return modules[module], leaf
