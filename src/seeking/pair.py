"""The two models and the map between them."""

import contextlib
import sys
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seeking.choices import Model, NormPolicy
from seeking.derive import derive
from seeking.errors import RunWarning, SeekingError
from seeking.forward import Forward
from seeking.internals import child_modules, foreach_copy, own_tensor, versions
from seeking.option_types import check_word
from seeking.pretrained import warn_of_overwritten
from seeking.shared_state import SharedState, block_views, part_state
from seeking.supported import check_apart, check_fits, check_map, check_models, check_registered, check_writable
from seeking.verification.constants import own_constants
from seeking.verification.shareable import check_modes, check_parametrizations
from seeking.weights_map import WeightsMap, identity, tensors

NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Last part of the names of the buffers that batch normalisation estimates from the data."""

MAX_BLOCKS = 32
"""An entry of more blocks than this is copied by index instead of block by block."""


class Pair:
    """A base model inside a motivated model.

    Base tensors that are the whole of their target are tied: both models use one storage and nothing is ever
    copied. The others are copied into the motivated model on entering ``motivated()`` and back on leaving it. Both
    models keep parameters and gradients of their own, so that an optimizer may be built before or after. If both models
    are sharded by FSDP2 after they have been paired, they must differ in depth only; each process then holds one shard
    of what they share.

    A buffer that training does not change, and of which the two models have other values, is a constant of each model:
    it is neither tied nor copied.

    Args:
        base: the smaller model.
        motivated: the larger model.
        weights_map: where the base lies; derived by ``seeking.match`` if not given, for models whose forward pass it
            can follow. Give a batch, too, where the models' own code has running statistics.
        norm: whose the statistics of batch normalisation are. ``shared``: one set, through the map, as in the paper.
            ``private``: each model keeps its own. ``recalibrated``: as ``private``, and ``seeking.recalibrate`` is
            meant to be called before the motivated model is evaluated (the ``Trainer`` does).
        tie: False copies every tensor, which gives the same numbers.
        batch: one input, as ``forward`` takes it, on which is seen which buffers training changes; if not given, one is
            made where the base tells what it takes.
        forward: runs a model on the batch; as in ``seeking.match``.
        own: patterns, or one, of tensors of the base that each model keeps for itself, though the map could share them,
            as ``WeightsMap.without`` takes them: ``("norm*", "head")``. The base is then no longer exactly inside the
            motivated model. They keep the values that they have in each model.
        shared_from: whose weights the shared part gets, at once. ``base``: the mapped entries of the motivated model
            take the base's values. ``motivated``: the base takes those of its part of the motivated model. Give it when
            the motivated model is pretrained, since a new base would overwrite what that model has learnt. None:
            ``base``, with a warning if the scales of its norms show that the motivated model has been trained. The
            other entries of the motivated model keep their values.

    Attributes:
        constants: names of the base's buffers that are constants of each model.
        optimizers: the base's and the motivated model's, if their states (momentum, second moments, step counts) are to
            be shared through the map as well; None: each keeps its own, as in the paper.

    Raises:
        NotContainedError: the motivated model cannot contain the base.
        SeekingError: the map is not one of these models; a parameter is frozen in one of them alone; or their weights
            cannot be shared, such as a part of a weight under ``spectral_norm``, weights that ``eval()`` changes, or a
            parameter that is one object in both. The models have not been changed.
    """

    def __init__(
        self,
        base: nn.Module,
        motivated: nn.Module,
        weights_map: WeightsMap | None = None,
        *,
        norm: NormPolicy = "private",
        tie: bool = True,
        batch: Any = None,
        forward: Forward | None = None,
        own: str | Sequence[str] = (),
        shared_from: Model | None = None,
    ) -> None:
        self.base = base
        self.motivated_model = motivated
        if shared_from is not None:
            check_word("value of shared_from", shared_from, Model)
        check_word("value of norm", norm, NormPolicy)
        check_models(base, motivated)
        if base is motivated:
            raise SeekingError("the base and the motivated model are one module; give two")
        roles = {"base": base, "motivated model": motivated}
        for role, model in roles.items():
            check_writable(model, role)
        check_apart(base, motivated)
        if weights_map is None:
            weights_map = derive(base, motivated, batch, forward)
        check_map(weights_map)
        self.map = weights_map.without(*([own] if isinstance(own, str) else own))
        self.norm = norm
        self.tie = tie
        self.optimizers: tuple[Optimizer, Optimizer] | None = None
        self.map.check(base, motivated)
        check_parametrizations(base, motivated, self.map, extra=False)
        for role, model in roles.items():
            check_modes(model, role)
        self.constants = own_constants(base, motivated, self.map, batch, forward)
        self._moving = {
            name: entry
            for name, entry in self.map.shared.entries.items()
            if name not in self.constants and (norm == "shared" or not name.endswith(NORM_STATISTICS))
        }
        self._check_trained()
        if shared_from is None:
            warn_of_overwritten(base, motivated, self.map)
        self._share_weights(shared_from or "base")
        self._state = SharedState(base, motivated, self._moving, tie)
        self._depth, self._sharded, self._separated = 0, False, False
        self._modules = [*base.modules(), *motivated.modules()]
        self._children = child_modules(self._modules)
        modules = [dict(model.named_modules(remove_duplicate=False)) for model in (base, motivated)]
        self._owned = [
            (*_owner(modules[0], name), *_owner(modules[1], entry.target), entry)
            for name, entry in self._moving.items()
        ]
        self._twins = _twins(motivated, {entry.target for entry in self._moving.values()})
        self._bound: list[int] = []
        self._targets: list[int] = []
        self._views: tuple[list[Tensor], list[Tensor]] = [], []
        self._indexed: list[tuple[Tensor, Tensor, tuple[Tensor, ...]]] = []
        self._shared: list[Tensor] = []
        self._sliced: list[Tensor] = []
        self._sliced_targets: list[Tensor] = []
        self._left_versions: list[int] | None = None
        self._bound_squares: list[Tensor] = []
        self._bind()

    def _check_trained(self) -> None:
        """Refuse a parameter that one model trains and the other one does not."""
        for name, parameter in self.base.named_parameters():
            target = self.map.entries[name].target
            trained = self.motivated_model.get_parameter(target).requires_grad
            if name not in self.map.own and parameter.requires_grad != trained:
                raise SeekingError(
                    f"{name} is {'trained' if parameter.requires_grad else 'frozen'} in the base and {target} is not; "
                    "set requires_grad alike in both models"
                )

    @torch.no_grad()
    def _share_weights(self, shared_from: Model) -> None:
        """Give what both models share the values that it has in one of them."""
        base, motivated = tensors(self.base), tensors(self.motivated_model)
        if shared_from == "motivated":
            part = self.map.shared.extract(motivated)
            for name, tensor in base.items():
                if name in part and name not in self.constants:
                    tensor.copy_(part[name])
        kept = self.constants | self.map.own
        mapped = self.map.embed({name: tensor for name, tensor in base.items() if name not in kept}, motivated)
        for name, tensor in motivated.items():
            tensor.copy_(mapped[name])

    @contextlib.contextmanager
    def motivated(self, optimizers: tuple[Optimizer, Optimizer] | None = None) -> Iterator[nn.Module]:
        """The motivated state: inside, the motivated model holds the base's weights; afterwards the base has them back.

        Evaluate the motivated model inside, too. On leaving by an exception the shared part is copied back all
        the same, as it would be if it were tied.

        Args:
            optimizers: as the attribute, for this time.

        Raises:
            SeekingError: the models are on different devices or of different dtypes.
        """
        if self._depth:  # Within itself it is the same state.
            yield self.motivated_model
            return
        optimizers = optimizers or self.optimizers
        if optimizers:
            self._state.check(*optimizers)
        with torch.no_grad():
            self._bind()
            self._warn_of_lost_changes()
            self._copy(into_motivated=True)
            if optimizers:
                self._state.copy(*optimizers, into_motivated=True)
        self._depth = 1
        versions_before = versions(self._sliced)
        try:
            yield self.motivated_model
        finally:
            self._depth = 0
            if versions(self._sliced) != versions_before:
                warnings.warn(
                    "the base was changed inside motivated(), where the motivated model holds the shared weights; what "
                    "is sliced loses that change. Change the base outside",
                    RunWarning,
                    stacklevel=3,
                )
            if self._sharded:  # What one model has gathered is out of date when the other has taken a step.
                from seeking.distributed.sharding import reshard

                reshard(self.base, self.motivated_model)
            with torch.no_grad():
                self._copy(into_motivated=False)
                self._copy_replaced()
                if optimizers:
                    self._state.copy(*optimizers, into_motivated=False)
            self._left_versions = versions(self._sliced_targets)
            self._bound_squares = []
            # A graph of the base that is older than this step must not be used for a backward pass any more.
            torch.autograd.graph.increment_version(self._shared)

    @property
    def separated(self) -> bool:
        """Whether each model has weights of its own."""
        return self._separated

    def state_dict(self) -> dict[str, bool]:
        """Whether the pair is separated; the weights are the models'."""
        return {"separated": self._separated}

    def load_state_dict(self, state: Mapping[str, bool]) -> None:
        """Separate the pair if it was. Load the models' weights afterwards."""
        self._left_versions = None  # What is loaded from now on is no change of a user's.
        if state["separated"]:
            self.separate()

    def separate(self) -> None:
        """Give each model weights of its own: the motivated model leaves with a copy of what the base has now.

        The pair cannot be entered any more; both models and their optimizers go on independently. Of a separated pair
        nothing changes.

        Raises:
            SeekingError: the models are sharded, or inside ``motivated()``.
        """
        if self._separated:
            return
        if self._depth:
            raise SeekingError("a pair cannot be separated inside motivated(); leave it first")
        with self.motivated():
            pass
        if self._sharded:
            raise SeekingError("a pair of sharded models cannot be separated")
        with torch.no_grad():
            copies: dict[Hashable, Tensor] = {}
            for small, name, large, target, _ in self._owned:
                source, tied = own_tensor(small, name), own_tensor(large, target)
                if identity(source) == identity(tied):
                    tied.data = copies.setdefault(identity(source), source.data.clone())
            self._follow()
        if self.optimizers:
            part_state(*self.optimizers)
        self._separated = True

    @torch.no_grad()
    def inherit_state(self, base: Optimizer, motivated: Optimizer) -> None:
        """Give the motivated model's optimizer a copy of what the base's keeps for the shared weights.

        Entries of the motivated model's own have zeros where the optimizer has one value for each.

        Raises:
            SeekingError: the state is not shaped like the parameters.
        """
        self._state.check(base, motivated)
        self._state.copy(base, motivated, into_motivated=True)
        part_state(base, motivated)

    def _bind(self) -> None:
        """Tie what is whole and take views of what is sliced, anew whenever a tensor has moved."""
        if self._separated:
            raise SeekingError("the pair was separated: each model has weights of its own; make a new Pair")
        if child_modules(self._modules) != self._children:
            raise SeekingError("a module of the models was replaced after they were paired; make a new Pair")
        shards: list[Tensor] = []
        both = []
        over: tuple[Mapping[Any, Any], Mapping[Any, Any]] = {}, {}
        if "torch.distributed.fsdp" in sys.modules:  # Slow to import, and nothing is sharded without it.
            from seeking.distributed.sharding import reshard, sharded_parameters, tie_shards

            over = sharded_parameters(self.base), sharded_parameters(self.motivated_model)
            self._sharded = bool(over[0] or over[1])
            if self._sharded:
                reshard(self.base, self.motivated_model)
        for small, name, large, target_name, entry in self._owned:
            if (small, name) in over[0] or (large, target_name) in over[1]:
                shards.append(tie_shards(*over, (small, name), (large, target_name), entry))
            else:
                both.append((own_tensor(small, name), own_tensor(large, target_name), entry))
        addresses = [tensor.data_ptr() for source, target, _ in both for tensor in (source, target)]
        self._shared = [*shards, *(source for source, _, _ in both)]
        if addresses == self._bound:
            return
        check_registered(self.base, "base", self._moving)
        check_registered(self.motivated_model, "motivated model", [entry.target for entry in self._moving.values()])
        self._views, self._indexed = ([], []), []
        self._sliced = [source for source, _, entry in both if not (self.tie and entry.whole)]
        self._sliced_targets = [target for _, target, entry in both if not (self.tie and entry.whole)]
        self._left_versions = versions(self._sliced_targets)
        self._bound_squares = _squares(self._sliced_targets)
        for source, target, entry in both:
            check_fits(source, target, entry)
            if self.tie and entry.whole:
                target.data = source.data
            elif entry.block_count() <= MAX_BLOCKS:
                pairs = block_views(source, target, entry)
                self._views[0].extend(view for view, _ in pairs)
                self._views[1].extend(view for _, view in pairs)
            else:
                self._indexed.append((source.data, target.data, entry.mesh(target.device)))
        self._follow()
        self._targets = [] if shards else [target.data_ptr() for _, target, _ in both]
        self._bound = [tensor.data_ptr() for source, target, _ in both for tensor in (source, target)]

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
            stacklevel=4,
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


@torch.no_grad()
def _squares(values: Sequence[Tensor]) -> list[Tensor]:
    """A number for each tensor that a change of it changes; a plain sum is the same after a step of cross-entropy."""
    # In float16 it would overflow, and in bfloat16 round small changes away.
    wide = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in values)
    return [(tensor * tensor).sum() for tensor in wide]


def _owner(modules: Mapping[str, nn.Module], name: str) -> tuple[nn.Module, str]:
    module, _, leaf = name.rpartition(".")
    return modules[module], leaf
