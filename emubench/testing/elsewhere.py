"""A device that every machine has: it computes on the CPU, but holds its tensors apart, as a GPU does.

Within :class:`Elsewhere` a tensor moved to :data:`ELSEWHERE` meets only others that are there. What a GPU would refuse
is refused here, by file and line: a tensor made without its device, ``.numpy()``, a draw on the device, which would
depend on its kind. What a GPU would wait for is counted by file and line: a value, or as many as a mask picks, that go
to the host, an index or a blocking copy that come from there. Not counted is what torch's linear algebra asks of its
own results (``cholesky``, ``eigh``); of a GPU's arithmetic nothing is seen.
"""

import collections
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ELSEWHERE = torch.device("lazy", 0)
"""What tensors of the device say that they are on; nothing else uses this kind."""
aten = torch.ops.aten
MADE = (torch.tensor, torch.as_tensor, torch.asarray)
"""What takes values of the host to a device."""
NUMBERS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2, aten.unique_dim}
"""What a GPU can't answer, or not give the size of, before the host has waited for a value."""
MOVES = {aten._to_copy, aten.copy_}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
"""What takes indices of the host, too."""


class Apart(Tensor):
    """A tensor of the device; its values are those of ``inner``."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Apart":
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = Tensor._make_wrapper_subclass(cls, inner.size(), device=ELSEWHERE, **layout)  # type: ignore[attr-defined]
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{line()}: a tensor of a device that is no more")


def line() -> str:
    """File and line of the innermost frame that is neither torch's nor of this module."""
    skipped, frame = (str(Path(torch.__file__).parent), __file__), sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(skipped):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{frame.f_lineno}"


class Elsewhere(TorchDispatchMode):
    """While it lasts the device is there; ``trips`` counts, by file and line, what the host had to wait for."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as nothing is compiled here, each operator would pay for it

    def __init__(self) -> None:
        super().__init__()
        self.trips: collections.Counter[str] = collections.Counter()
        self._calls = _Calls()

    def __enter__(self) -> "Elsewhere":
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, trace: types.TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self._calls.__exit__(kind, error, trace)

    def trips_of(self, call: Callable[[], Any]) -> collections.Counter[str]:
        """The trips of a call."""
        before = self.trips.copy()
        call()
        return self.trips - before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, kind = dict(kwargs or {}), func.overloadpacket
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        apart = [t for t in tensors if isinstance(t, Apart)]
        asked = kwargs.get("device")
        there = asked == ELSEWHERE if asked is not None else bool(apart)
        if there and torch.Tag.nondeterministic_seeded in func.tags:
            raise AssertionError(f"{line()}: {func} draws on the device: draw with a generator of the host, then move")
        self._check_places(func, args, tensors, apart)
        if _waits(func, args, kwargs, apart, there):
            self.trips[line()] += 1
        if kind is aten.copy_:
            there = isinstance(args[0], Apart)
        if asked == ELSEWHERE:
            kwargs["device"] = torch.device("cpu")
        places = {id(t.inner): t for t in apart}
        found = func(*_mapped(_inner, args), **{name: _mapped(_inner, value) for name, value in kwargs.items()})
        if not there:
            return args[0] if kind is aten.copy_ else found
        return _mapped(lambda t: places[id(t)] if id(t) in places else Apart(_resolved(t)), found)

    def _check_places(self, func: Any, args: Sequence[Any], tensors: list[Tensor], apart: list[Apart]) -> None:
        kind = func.overloadpacket
        if not apart or kind in MOVES:
            return
        strangers = [t for t in tensors if not isinstance(t, Apart)]
        if kind in INDEXED and isinstance(args[0], Apart):
            indices = {id(t) for t in args[1] if t is not None}
            strangers = [t for t in strangers if id(t) not in indices]
        changed = func._schema.is_mutable and strangers and strangers[0] is args[0]
        if changed or any(t.ndim or kind is aten.cat for t in strangers):
            raise AssertionError(f"{line()}: {func} meets a tensor of the host, made without its device")


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors of an operator's arguments, in order."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _mapped(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Arguments, or results, with ``function`` of their tensors."""
    if isinstance(value, Tensor):
        return function(value)
    return type(value)([_mapped(function, v) for v in value]) if type(value) in (tuple, list) else value


def _resolved(value: Tensor) -> Tensor:
    """Without the marks of a conjugate or a negative to be taken later, which no operator within a mode heeds."""
    return value.resolve_conj().resolve_neg()


def _inner(value: Tensor) -> Tensor:
    return value.inner if isinstance(value, Apart) else value


def _waits(func: Any, args: Sequence[Any], kwargs: dict[str, Any], apart: list[Apart], there: bool) -> bool:
    """Whether host and device wait for each other: for a value, for how many a mask picks, for a copy to be there."""
    kind = func.overloadpacket
    if kind in INDEXED and apart:
        masks = any(isinstance(t, Apart) and t.dtype in (torch.bool, torch.uint8) for t in args[1])
        return masks or any(t is not None and not isinstance(t, Apart) for t in args[1])
    if kind not in MOVES:
        return kind in NUMBERS and bool(apart)
    source, target = (args[0], there) if kind is aten._to_copy else (args[1], isinstance(args[0], Apart))
    if isinstance(source, Apart):
        return not target
    blocking = not (kwargs.get("non_blocking") or (kind is aten.copy_ and args[2:3] == (True,)))
    return target and blocking and source.ndim > 0


class _Calls(TorchFunctionMode):
    """What never comes to a dispatch mode as it should: values of the host made into tensors, lists as indices."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in MADE and "device" in kwargs:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func in (Tensor.numpy, Tensor.__array__) and isinstance(args[0], Apart):
            raise AssertionError(f"{line()}: numpy of a tensor of the device: cpu() says that it goes to the host")
        if func is Tensor.new_tensor and isinstance(args[0], Apart):
            kwargs = {"dtype": args[0].dtype, **kwargs}
            return torch.tensor(*args[1:], **kwargs).to(args[0].device)
        if func is Tensor.tolist and isinstance(args[0], Apart):
            return args[0].cpu().tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Apart):
            args = (args[0], _listed(args[1]), *args[2:])
        return func(*args, **kwargs)


def _listed(index: Any) -> Any:
    """An index in which lists are tensors."""
    if isinstance(index, tuple):
        return tuple(map(_listed, index))
    return torch.tensor(index) if isinstance(index, list) else index


def check_trips(who: str, less: collections.Counter[str], more: collections.Counter[str], extra: int) -> None:
    """Raise AssertionError that names the lines which go to the host at each of the ``extra`` pieces of work."""
    grown = {place: n for place, n in (more - less).items() if n >= extra}
    if grown:
        where = ", ".join(f"{place} ({n} times)" for place, n in grown.items())
        raise AssertionError(f"{who} each time waits for the host: with {extra} more, {where}")
