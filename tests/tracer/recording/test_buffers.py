"""Memory for copies: reused, and never more than the budget."""

from __future__ import annotations

import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_xray.tracer.recording.buffers import Buffer, BufferPool, kind_of


def _take(pool: BufferPool, tensor: torch.Tensor, *, wait: bool) -> Buffer | None:
    return pool.take(kind_of(tensor), tensor.nbytes, wait=wait)


def test_a_buffer_comes_back_for_the_same_kind_of_tensor() -> None:
    """What was given back is handed out again to a tensor of the same shape, dtype and layout, and to no other."""
    pool = BufferPool(1 << 20)
    tensor = torch.zeros(2, 3, 4, 4)
    first = _take(pool, tensor, wait=True)
    assert first is not None
    pool.give([first])
    assert _take(pool, tensor.half(), wait=True) is not first
    assert _take(pool, tensor.to(memory_format=torch.channels_last), wait=True) is not first
    assert _take(pool, torch.ones(2, 3, 4, 4), wait=True) is first


def test_a_large_buffer_serves_any_tensor_of_its_size() -> None:
    """What held a large tensor is made into memory for another one of as many bytes, on a page boundary."""
    pool = BufferPool(1 << 22)
    first = _take(pool, torch.zeros(2, 3, 256, 256), wait=True)
    assert first is not None and first.address % 4096 == 0
    pool.give([first])
    other = torch.zeros(6, 512, 256, dtype=torch.float16)
    second = _take(pool, other, wait=False)
    assert second is not None and second.address == first.address
    assert (second.tensor.dtype, second.tensor.shape, second.tensor.is_contiguous()) == (other.dtype, other.shape, True)
    second.tensor.copy_(torch.ones_like(other))
    pool.give([second])
    assert _take(pool, torch.zeros(4, 256, 256).to(memory_format=torch.preserve_format), wait=False) is not None
    image = torch.zeros(2, 3, 256, 256).to(memory_format=torch.channels_last)
    third = _take(pool, image, wait=False)
    assert third is not None and third.tensor.stride() == image.stride() and third.address == first.address


def test_a_buffer_keeps_the_usual_memory_orders() -> None:
    """A channels-last tensor gets a channels-last buffer; views with holes get a dense one."""
    pool = BufferPool(1 << 20)
    image = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    buffer = _take(pool, image, wait=True)
    assert buffer is not None
    assert buffer.tensor.stride() == image.stride()
    part = _take(pool, image[:, :, ::2], wait=True)
    assert part is not None
    assert part.tensor.is_contiguous()


def test_buffers_of_inference_mode_are_ordinary_ones() -> None:
    """A buffer made while the run is in inference mode can be written to outside of it."""
    pool = BufferPool(1 << 20)
    with torch.inference_mode():
        buffer = _take(pool, torch.zeros(3), wait=True)
    assert buffer is not None
    buffer.tensor.fill_(1.0)


def test_without_waiting_a_spent_budget_gives_none() -> None:
    """Beyond the budget there is nothing to be had until something comes back."""
    pool = BufferPool(100)
    held = _take(pool, torch.zeros(20), wait=False)
    assert held is not None
    assert _take(pool, torch.zeros(10), wait=False) is None
    assert not pool.claim(40, wait=False)
    pool.give([held])
    assert _take(pool, torch.zeros(10), wait=False) is not None


def test_more_than_the_budget_is_granted_when_nothing_is_in_flight() -> None:
    """A tensor larger than the budget is let through alone, so that no run gets stuck."""
    pool = BufferPool(10)
    huge = _take(pool, torch.zeros(100), wait=False)
    assert huge is not None
    assert _take(pool, torch.zeros(1), wait=False) is None


def test_a_waiting_producer_goes_on_when_the_writer_gives_back() -> None:
    """With `wait` the producer sleeps until there is room."""
    pool = BufferPool(100)
    held = _take(pool, torch.zeros(20), wait=True)
    assert held is not None
    got = []
    producer = threading.Thread(target=lambda: got.append(_take(pool, torch.zeros(15), wait=True)))
    producer.start()
    producer.join(0.05)
    assert producer.is_alive()
    pool.give([held])
    producer.join(10)
    assert len(got) == 1
    assert got[0] is not None


def test_closing_lets_everyone_go() -> None:
    """A closed pool hands nothing out, and whoever waits for it goes on."""
    pool = BufferPool(100)
    assert _take(pool, torch.zeros(20), wait=True) is not None
    got = []
    producer = threading.Thread(target=lambda: got.append(_take(pool, torch.zeros(15), wait=True)))
    producer.start()
    pool.close()
    producer.join(10)
    assert got == [None]
    assert not pool.claim(1, wait=True)


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=40))
def test_all_buffers_together_stay_below_the_budget(requests: list[tuple[int, bool]]) -> None:
    """Whatever is taken and given back, buffers in use and spare ones never exceed the budget together."""
    budget, pool, held = 200, BufferPool(200), []
    for size, give_back in requests:
        if (buffer := _take(pool, torch.zeros(size), wait=False)) is not None:
            held.append(buffer)
        assert pool._in_flight == sum(buffer.nbytes for buffer in held)
        assert pool._in_flight + pool._idle_bytes <= budget
        if give_back and held:
            pool.give([held.pop(0)])
