"""Every private corner of PyTorch and accelerate is still where this library looks for it."""

import io
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from seeking import internals


def test_lists_of_tensors_are_copied_in_one_call() -> None:
    targets, sources = [torch.zeros(2), torch.zeros(3)], [torch.ones(2), torch.arange(3.0)]
    internals.foreach_copy(targets, sources)
    assert all(map(torch.equal, targets, sources))


def test_tensors_inside_vmap_have_no_storage() -> None:
    seen = []
    torch.vmap(lambda row: seen.append((internals.is_wrapped(row), internals.storage_id(row))) or row)(torch.ones(2, 3))
    assert seen == [(True, None)]
    assert not internals.is_wrapped(torch.ones(2))


def test_the_norms_of_a_list_of_tensors_are_taken_in_one_call() -> None:
    assert [norm.item() for norm in internals.foreach_norm([torch.ones(4), torch.tensor([[3.0, 4.0]])])] == [2, 5]


def test_the_parts_of_sparse_tensors_are_not_summed() -> None:
    tensor = torch.sparse_coo_tensor([[1, 1]], [1.0, 2.0], (3,))
    assert [part.tolist() for part in internals.sparse_parts(tensor)] == [[[1, 1]], [1, 2]]


def test_a_schedule_may_begin_before_its_optimizer(recwarn: pytest.WarningsRecorder) -> None:
    for begun in (True, False):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        if begun:
            internals.let_schedule_begin(optimizer)
        schedule.step()
        assert ["before `optimizer.step()`" in str(each.message) for each in recwarn] == ([] if begun else [True])


def test_changes_in_place_are_counted() -> None:
    tensors = [torch.zeros(2), torch.zeros(2)]
    before = internals.versions(tensors)
    tensors[1].add_(1)
    after = internals.versions(tensors)
    assert before[0] == after[0]
    assert before[1] != after[1]
    with torch.inference_mode():
        assert internals.versions([torch.zeros(2)]) == [0]


def test_a_modules_own_tensors_and_children() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    model = nn.Sequential(nn.BatchNorm1d(2), layer)
    assert internals.own_tensor(model[0], "weight") is model[0].weight
    assert internals.own_tensor(model[0], "running_mean") is model[0].running_mean
    assert torch.equal(internals.own_tensor(layer, "weight"), layer.weight)
    slots = internals.buffer_slots(model)
    assert [name for _, name in slots] == ["running_mean", "running_var", "num_batches_tracked"]
    assert slots[0][0]["running_mean"] is model[0].running_mean
    assert internals.child_modules([model]) == [*model]
    model.again = layer
    assert [*internals.registered_children(model).values()] == [model[0], layer, layer]


def test_a_loaders_iterator_passes_over_batches_without_loading_them() -> None:
    loaded = []

    class Counting(TensorDataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            loaded.append(index)
            return super().__getitem__(index)

    iterator = iter(DataLoader(Counting(torch.arange(8)), 2))
    assert internals.skip_indices(iterator, 3)
    assert torch.equal(next(iterator)[0], torch.tensor([6, 7])) and loaded == [6, 7]
    assert not internals.skip_indices(iter([1, 2]), 1)


def test_what_a_compiled_module_runs_is_wrapped_and_taken_away() -> None:
    model, calls = nn.Linear(2, 2), []
    model.compile(backend="eager")

    def wrap(compiled):
        def call(*given):
            calls.append(given)
            return compiled(*given)

        return call

    internals.wrap_compiled_call(model, wrap)
    model(torch.ones(1, 2))
    internals.undo_compilation(model)
    model(torch.ones(1, 2))
    assert len(calls) == 1
    assert issubclass(internals.dynamo_errors(), Exception)


def test_what_the_cpu_has_is_known() -> None:
    assert internals.has_amx() in (True, False)


def test_accelerates_state_is_known_and_forgotten() -> None:
    internals.reset_accelerator(with_processes=True)
    assert not internals.accelerator_started()
    Accelerator(cpu=True)
    assert internals.accelerator_started()
    internals.reset_accelerator()
    assert internals.accelerator_started()


class Own(DataLoader[Any]):
    def __iter__(self) -> Any:
        yield from super().__iter__()


class Later(DataLoader[Any]):
    iterator: Any = None

    def __len__(self) -> int:
        return 1


def test_how_a_loader_is_iterated_over_is_known() -> None:
    data = TensorDataset(torch.arange(4))
    assert internals.iterates_by_torch(DataLoader(data)) and internals.iterates_by_torch(Later(data))
    assert not any(map(internals.iterates_by_torch, (Own(data), [1, 2], iter(DataLoader(data)))))


def test_a_copied_loader_is_of_its_class_and_has_workers_of_its_own() -> None:
    loader = Later(TensorDataset(torch.arange(4)), 2, num_workers=1, persistent_workers=True)
    assert len([*loader]) == 2
    twin = internals.copied_loader(loader, batch_sampler=[[3], [1]])
    assert type(twin) is Later and twin._iterator is None and loader._iterator is not None
    assert [x.tolist() for (x,) in twin] == [[3], [1]]
    assert [x.tolist() for (x,) in loader] == [[0, 1], [2, 3]]


def test_iterators_that_a_loader_keeps_are_found() -> None:
    loader = Later(TensorDataset(torch.arange(4)), 2, num_workers=1, persistent_workers=True)
    next(iter(loader))
    assert internals.own_iterators(loader) == []
    loader.iterator = iter([1])
    around = SimpleNamespace(loader=loader, file=io.StringIO())
    assert internals.own_iterators(around) == [loader.iterator]


def test_iterable_data_split_by_node_are_known() -> None:
    from datasets import Dataset
    from datasets.distributed import split_dataset_by_node

    data = Dataset.from_dict({"x": [0, 1]}).to_iterable_dataset()
    assert not internals.is_split_by_node(data)
    assert internals.is_split_by_node(split_dataset_by_node(data, 0, 2))


def test_the_handler_of_dead_workers_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    # PyTorch installs it once in a process.
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._SIGCHLD_handler_set", False)
    previous = signal.getsignal(signal.SIGCHLD)
    try:
        iterator = iter(DataLoader(TensorDataset(torch.arange(4)), 2, num_workers=1))
        assert internals.is_worker_handler(signal.getsignal(signal.SIGCHLD))
        del iterator
    finally:
        signal.signal(signal.SIGCHLD, previous or signal.SIG_DFL)
    assert not internals.is_worker_handler(signal.SIG_DFL)


def test_layers_without_a_public_name() -> None:
    assert issubclass(nn.Conv3d, internals.Convolution) and issubclass(nn.ConvTranspose1d, internals.Convolution)
    assert issubclass(nn.BatchNorm2d, internals.BatchNorm) and issubclass(nn.SyncBatchNorm, internals.BatchNorm)
    assert issubclass(nn.InstanceNorm1d, internals.StatisticsNorm)
    assert issubclass(nn.Dropout2d, internals.Dropout) and issubclass(nn.AlphaDropout, internals.Dropout)


def test_operations_declare_their_arguments() -> None:
    names = [argument.name for argument in internals.operation_arguments(torch.ops.aten.add.Tensor)]
    assert names == ["self", "other", "alpha"]


def test_a_mode_sees_operations_and_trees_are_mapped() -> None:
    seen = []

    class Mode(internals.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Mode():
        torch.ones(1) + 1
    assert any("aten.add" in name for name in seen)
    assert internals.tree_map(lambda x: x + 1, {"a": [1, (2,)]}) == {"a": [2, (3,)]}
    assert internals.tree_map_only(int, lambda x: x + 1, {"a": [1, "b"]}) == {"a": [2, "b"]}


def test_operations_that_take_functions_pass_through_modes() -> None:
    seen = []

    class Mode(internals.PassingMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(internals.takes_functions(func))
            return func(*args, **(kwargs or {}))

    with torch.compiler.set_stance("force_eager"), Mode():
        doubled = torch.cond(torch.ones(2).sum() > 1, lambda x: 2 * x, lambda x: x, (torch.ones(1),))
    assert doubled == 2
    assert {*seen} == {True, False}


def test_ddp_leaves_out_what_it_is_told_to() -> None:
    both = nn.ModuleDict({"base": nn.Linear(2, 2), "motivated": nn.BatchNorm1d(2)})
    internals.leave_out_of_ddp(both, "motivated.")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(both)
    finally:
        torch.distributed.destroy_process_group()
    assert wrapped.parameters_to_ignore == {f"motivated.{name}" for name in both["motivated"].state_dict()}


def test_the_words_of_numpys_generator_are_its_state() -> None:
    generator = np.random.MT19937(3)
    for draws in (0, 1, 700):
        generator.random_raw(draws)
        state = generator.state["state"]
        expected = state["key"].astype(np.uint32).tobytes() + np.int32(state["pos"]).tobytes()
        assert internals.mt19937_words(generator) == expected


def test_streams_of_datasets_lose_what_is_in_their_shuffle_buffers() -> None:
    from datasets import Dataset, concatenate_datasets

    def stream() -> Any:
        return Dataset.from_dict({"x": [*range(24)]}).to_iterable_dataset(num_shards=3)

    def rest(data: Any, state: Any, count: int) -> list[int]:
        data.load_state_dict(state)
        return [row["x"] for row in data][:count]

    kinds = {
        "plain": (stream, False),
        "mapped": (lambda: stream().map(lambda rows: rows, batched=True, batch_size=5).filter(lambda row: True), False),
        "joined": (lambda: concatenate_datasets([stream(), stream().skip(3)]), False),
        "shuffled": (lambda: stream().shuffle(seed=1, buffer_size=10).map(lambda row: row), True),
        "one of two": (lambda: concatenate_datasets([stream().shuffle(seed=1, buffer_size=10), stream()]), True),
    }
    for name, (make, lost) in kinds.items():
        data = make()
        whole = [row["x"] for row in data]
        for _ in zip(range(9), data, strict=False):
            pass
        state = data.state_dict()
        assert internals.has_shuffle_buffer(make()) == lost, name
        again = make()
        assert (rest(again, state, 99) != whole[9:]) == lost, name
        internals.forget_position(again)
        assert [row["x"] for row in again] == whole, name
    assert not internals.has_shuffle_buffer(TensorDataset(torch.zeros(2)))
    internals.forget_position(TensorDataset(torch.zeros(2)))


def test_flops_are_counted_where_gradients_are_part_of_the_loss() -> None:
    linear, x = nn.Linear(3, 2), torch.ones(4, 3, requires_grad=True)
    with internals.flop_counter() as counter:
        output = linear(x)
        assert counter.get_total_flops() == 2 * 4 * 3 * 2
        torch.autograd.grad(output.square().sum(), x, create_graph=True)[0].square().sum().backward()
    assert counter.get_total_flops() > 3 * 2 * 4 * 3 * 2


def test_the_older_reparametrizations_are_known() -> None:
    with pytest.warns(FutureWarning):
        normed = nn.utils.weight_norm(nn.Linear(2, 2))
    older = (normed, nn.utils.spectral_norm(nn.Linear(2, 2)))
    assert [len(internals.reparametrizations(module)) for module in older] == [1, 1]
    newer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    hooked = nn.Linear(2, 2)
    hooked.register_forward_pre_hook(lambda module, inputs: None)
    assert [internals.reparametrizations(module) for module in (newer, hooked)] == [[], []]


class Ending(Dataset[int]):
    def __init__(self, end: int) -> None:
        self.end = end

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == self.end:
            raise StopIteration
        return index


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("end", "by_item"), [(2, True), (4, False)])
def test_what_has_ended_a_loader_is_known(workers: int, end: int, by_item: bool) -> None:
    iterator = iter(DataLoader(Ending(end), num_workers=workers))
    for _ in range(min(end, 4)):
        next(iterator)
    with pytest.raises(StopIteration) as stopped:
        next(iterator)
    assert internals.ended_by_item(stopped.value) == by_item


def test_two_sharded_parameters_use_one_shard() -> None:
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        source, target = (nn.Linear(3, 2) for _ in range(2))
        for model in (source, target):
            fully_shard(model, mesh=mesh)
        records = [internals.fsdp_parameters(model) for model in (source, target)]
        assert [record.keys() for record in records] == [{(m, "weight"), (m, "bias")} for m in (source, target)]
        ours, theirs = records[0][source, "weight"], records[1][target, "weight"]
        assert internals.fsdp_shard_size(ours) == internals.fsdp_shard(ours).shape == (2, 3)
        assert internals.local_tensor_id(source.weight) != internals.local_tensor_id(target.weight)
        internals.share_fsdp_shard(ours, theirs)
        assert internals.local_tensor_id(source.weight) == internals.local_tensor_id(target.weight)
        with torch.no_grad():
            source.weight.fill_(2)
        x = torch.ones(1, 3)
        assert torch.equal(target(x) - internals.fsdp_shard(records[1][target, "bias"]), torch.full((1, 2), 6.0))
    finally:
        torch.distributed.destroy_process_group()


def test_digits_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_digits()
    for _ in range(2):
        images, labels = internals.digits()
        assert np.array_equal(images, expected.images)
        assert np.array_equal(labels, expected.target)
        assert (images.dtype, labels.dtype) == (expected.images.dtype, expected.target.dtype)
        monkeypatch.setattr(Path, "exists", lambda path: False)  # Another layout of the package.


def test_outside_of_modes_nothing_is_seen() -> None:
    seen: list[str] = []

    class Watching(internals.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    class Functions(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watching(), Functions():
        with internals.outside_modes():
            torch.ones(2).add(1)
        assert not seen
        torch.ones(2).add(1)
    assert len(seen) >= 4


def test_a_module_that_is_called_with_other_arguments_is_told_from_one_that_fails() -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return len(x, x)  # type: ignore[call-arg, return-value]

    for module, inputs, refused in ((nn.ReLU(), (1, 2), True), (Failing(), (1,), False), (Failing(), (1, 2), True)):
        with pytest.raises(TypeError) as raised:
            module(*inputs)
        assert internals.refuses_arguments(raised.value) == refused
    assert not internals.refuses_arguments(ValueError("not raised"))


def test_what_mixed_precision_returns_is_a_copy() -> None:
    model = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(nn.Linear(2, 2))
    x = torch.ones(1, 2)
    (original,) = internals.copied_from(model(x))
    assert original.node.name() == "AddmmBackward0"
    assert internals.copied_from(nn.Linear(2, 2)(x)) == [] == internals.copied_from(x)
