"""Exponential moving averages, in numbers that a checkpoint can hold."""


def decay_rate(decay: float) -> float:
    """Validate the decay of an exponential moving average.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay is {decay}; the decay of a moving average is from 0 up, and below 1")
    return decay


def accumulate(value: float, total: float, weight: float, decay: float) -> tuple[float, float]:
    """The total and the weight of an average with one more value; the average is the total over the weight.

    So it is one of the values alone, without the zero that both begin with.
    """
    return decay * total + (1 - decay) * value, decay * weight + 1 - decay
