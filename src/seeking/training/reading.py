"""Reading numbers back from a device without keeping it waiting."""

import torch
import torch.distributed
from torch import Tensor

_streams: dict[torch.device, torch.cuda.Stream] = {}


class Reading:
    """Numbers on their way to the host.

    On a GPU they are copied to pinned memory in a stream of their own, so that ``get`` waits for the work that had
    been asked for when the reading began, and for none that has been since.

    Args:
        numbers: one dimension; not to be changed any more.
        processes: over how many processes they are summed up, all of which must begin to read.
    """

    def __init__(self, numbers: Tensor, processes: int = 1) -> None:
        self._numbers = numbers.detach()
        self._done: torch.cuda.Event | None = None
        self._sum = None
        if numbers.device.type != "cuda":
            if processes > 1:
                self._sum = torch.distributed.all_reduce(self._numbers, async_op=True)
            return
        stream = _streams.setdefault(numbers.device, torch.cuda.Stream(numbers.device))
        stream.wait_stream(torch.cuda.current_stream(numbers.device))
        with torch.cuda.stream(stream):
            if processes > 1:
                torch.distributed.all_reduce(self._numbers)
            host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            host.copy_(self._numbers, non_blocking=True)
            self._done = stream.record_event()
        numbers.record_stream(stream)
        self._numbers = host

    def get(self) -> list[float]:
        """The numbers."""
        if self._done:
            self._done.synchronize()
        if self._sum:
            self._sum.wait()
        found: list[float] = self._numbers.tolist()
        return found
