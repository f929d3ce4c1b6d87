"""The two models and the map between them."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from seeking.choices import Model, NormPolicy
from seeking.derive import derive
from seeking.errors import SeekingError
from seeking.forward import Forward
from seeking.option_types import check_word
from seeking.pretrained import warn_of_overwritten
from seeking.shared_state import SharedState, part_state
from seeking.shared_tensors import SharedTensors
from seeking.supported import check_apart, check_map, check_models, check_writable
from seeking.verification.constants import own_constants
from seeking.verification.shareable import check_modes, check_parametrizations
from seeking.weights_map import WeightsMap, tensors

NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Last part of the names of the buffers that batch normalisation estimates from the data."""


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
        self.map = weights_map.without(*(own if isinstance(own, Iterable) and not isinstance(own, str) else [own]))
        self.norm = norm
        self.tie = tie
        self.optimizers: tuple[Optimizer, Optimizer] | None = None
        self.map.check(base, motivated)
        check_parametrizations(base, motivated, self.map, extra=False)
        for role, model in roles.items():
            check_modes(model, role)
        self.constants = own_constants(base, motivated, self.map, batch, forward)
        shared = {
            name: entry
            for name, entry in self.map.shared.entries.items()
            if name not in self.constants and (norm == "shared" or not name.endswith(NORM_STATISTICS))
        }
        self._check_trained()
        warn_of_overwritten(base, motivated, self.map, shared_from)
        self._share_weights(shared_from or "base")
        self._tensors = SharedTensors(base, motivated, shared, tie)
        self._state = SharedState(base, motivated, shared, tie)
        self._entered, self._separated = False, False

    def __repr__(self) -> str:
        base, motivated = (
            f"{type(model).__name__} of {sum(parameter.numel() for parameter in model.parameters()):,}"
            for model in (self.base, self.motivated_model)
        )
        return f"Pair({base} in {motivated} parameters; {'separated' if self._separated else self._tensors})"

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
        if self._entered:  # Within itself it is the same state.
            yield self.motivated_model
            return
        optimizers = optimizers or self.optimizers
        if self._separated:
            raise SeekingError("the pair was separated: each model has weights of its own; make a new Pair")
        if optimizers:
            self._state.check(*optimizers)
        with torch.no_grad():
            self._tensors.enter()
            if optimizers:
                self._state.copy(*optimizers, into_motivated=True)
        self._entered = True
        try:
            yield self.motivated_model
        finally:
            self._entered = False
            with torch.no_grad():
                self._tensors.leave()
                if optimizers:
                    self._state.copy(*optimizers, into_motivated=False)

    @property
    def separated(self) -> bool:
        """Whether each model has weights of its own."""
        return self._separated

    def state_dict(self) -> dict[str, bool]:
        """Whether the pair is separated; the weights are the models'."""
        return {"separated": self._separated}

    def load_state_dict(self, state: Mapping[str, bool]) -> None:
        """Separate the pair if it was. Load the models' weights afterwards."""
        self._tensors.allow_changes()  # What is loaded from now on is no change of a user's.
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
        if self._entered:
            raise SeekingError("a pair cannot be separated inside motivated(); leave it first")
        with self.motivated():
            pass
        if self._tensors.sharded:
            raise SeekingError("a pair of sharded models cannot be separated")
        with torch.no_grad():
            self._tensors.part()
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
