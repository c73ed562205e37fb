"""Vectors of 64 bytes for numba, one trajectory per lane: 8 doubles, or 16 singles.

All lanes see the same instructions: the bytes of a trajectory depend neither on its lane nor on its neighbours, nor on
the batch size. Inside ``@jit`` functions :func:`load` and :func:`store` access vectors. They add, subtract and multiply
with each other and with floats, rounded to their precision; on a CPU with narrower registers LLVM splits them.
"""

import contextlib
import functools
import operator
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

LANES = 8
"""Trajectories in a vector of doubles."""
SINGLES = 2 * LANES
"""Trajectories in a vector of singles."""


def _forget_stale_code() -> None:
    """Delete cached machine code that is older than the files it is made of.

    Numba recompiles a function when its own file has changed, not when the file of a function that it calls has.
    """
    folder = Path(__file__).parent
    newest = max(path.stat().st_mtime for path in [*folder.glob("*.py"), folder.parent / "noise.py"])
    with contextlib.suppress(OSError):
        for path in (folder / "__pycache__").glob("*.nb?"):
            if path.stat().st_mtime < newest:
                path.unlink(missing_ok=True)


_forget_stale_code()
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_SINGLES = ir.VectorType(ir.FloatType(), SINGLES)
_WORDS = ir.VectorType(ir.IntType(64), LANES)


def _if_possible(do: Callable[..., Any]) -> Callable[..., Any]:
    """``do``, or nothing where files can't be read, written or understood: the code is compiled again."""

    def attempt(*args: Any) -> Any:
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
            return do(*args)

    return attempt


def _compiler(fastmath: Any) -> Callable[..., Any]:
    def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
        if function is None:
            return functools.partial(compiled, **options)
        chosen: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": fastmath}
        chosen |= options
        dispatcher: Any
        try:
            dispatcher = numba.njit(**chosen)(function)
        except RuntimeError:  # there is no folder to keep the code in
            chosen["cache"] = False
            dispatcher = numba.njit(**chosen)(function)
        cache = getattr(dispatcher, "_cache", None)
        for name in ("save_overload", "load_overload"):
            if hasattr(cache, name):
                setattr(cache, name, _if_possible(getattr(cache, name)))
        return dispatcher

    return compiled


jit = _compiler({"contract"})
"""``numba.njit`` as used by all kernels: multiplications and additions may be fused, alike in all lanes."""
sums = _compiler({"contract", "reassoc"})
"""``numba.njit`` for loops that are sums: reordered, they are vectors."""
strict_jit = _compiler(False)
"""``numba.njit`` without fused operations, for results that are the same bits everywhere."""


class VectorType(types.Type):
    """Numba type of 8 doubles (``vector``), of 16 singles (``singles``) or of 8 unsigned 64-bit words (``words``)."""


vector = VectorType(name=f"vector{LANES}")
singles = VectorType(name=f"singles{SINGLES}")
words = VectorType(name=f"words{LANES}")
_MADE_OF = {vector: _DOUBLES, singles: _SINGLES, words: _WORDS}
_OF_ARRAYS = {types.float64: vector, types.float32: singles, types.uint64: words}


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _MADE_OF[fe_type])


_intrinsic: Any = intrinsic
"""Untyped, as it hides the first parameter, the typing context, from callers."""


def _splat(builder, value, to):
    if to == _SINGLES and value.type == ir.DoubleType():
        value = builder.fptrunc(value, ir.FloatType())
    first = builder.insert_element(ir.Constant(to, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), to.count), [0] * to.count)
    return builder.shuffle_vector(first, ir.Constant(to, ir.Undefined), mask)


def _operator(op, instruction: str, kind: VectorType, scalars: tuple[types.Type, ...]) -> None:
    """Give ``op`` to two vectors of a kind, and to a vector and a scalar on either side."""
    pairs = [(kind, kind), *((kind, s) for s in scalars), *((s, kind) for s in scalars)]
    register: Any = infer_global(op)
    register(type("_Typing", (ConcreteTemplate,), {"cases": [signature(kind, *pair) for pair in pairs]}))
    to = _MADE_OF[kind]

    def lower(context, builder, sig, args):
        lhs, rhs = (a if t == kind else _splat(builder, a, to) for a, t in zip(args, sig.args, strict=True))
        return getattr(builder, instruction)(lhs, rhs)

    for pair in pairs:
        lower_builtin(op, *pair)(lower)


for _op, _instruction in {"add": "fadd", "sub": "fsub", "mul": "fmul", "truediv": "fdiv"}.items():
    _operator(getattr(operator, _op), _instruction, vector, (types.float64,))
    _operator(getattr(operator, _op), _instruction, singles, (types.float64, types.float32))
_INTEGER = {"add": "add", "sub": "sub", "xor": "xor", "or_": "or_", "lshift": "shl", "rshift": "lshr"}
for _op, _instruction in _INTEGER.items():
    _operator(getattr(operator, _op), _instruction, words, (types.int64, types.uint64))


@_intrinsic
def sqrt(typingctx, x):
    """Square roots, correctly rounded."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(_DOUBLES, [_DOUBLES])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f64"), args)

    return vector(vector), codegen


@_intrinsic
def as_words(typingctx, x):
    """The bits of doubles."""
    return words(vector), lambda context, builder, sig, args: builder.bitcast(args[0], _WORDS)


@_intrinsic
def as_doubles(typingctx, x):
    """The doubles that have these bits."""
    return vector(words), lambda context, builder, sig, args: builder.bitcast(args[0], _DOUBLES)


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    to = _MADE_OF[_OF_ARRAYS[array_type.dtype]]
    offset = builder.mul(index, ir.Constant(index.type, to.count))
    return builder.bitcast(builder.gep(data, [offset]), to.as_pointer())


@_intrinsic
def load(typingctx, array, index):
    """The vector at ``array[8 index : 8 index + 8]`` (singles: 16)."""

    def codegen(context, builder, sig, args):
        value = builder.load(_pointer(context, builder, sig.args[0], *args))
        value.align = sig.args[0].dtype.bitwidth // 8
        return value

    return _OF_ARRAYS[array.dtype](array, types.intp), codegen


@_intrinsic
def store(typingctx, array, index, value):
    """Write ``value`` to ``array[8 index : 8 index + 8]`` (singles: 16)."""

    def codegen(context, builder, sig, args):
        instruction = builder.store(args[2], _pointer(context, builder, sig.args[0], *args[:2]))
        instruction.align = sig.args[0].dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, _OF_ARRAYS[array.dtype]), codegen


@jit
def copy(source, start, target, begin, n):
    """Copy ``n`` vectors."""
    for i in range(n):
        store(target, begin + i, load(source, start + i))


def lanes(dtype: np.dtype) -> int:
    """Trajectories in a vector of ``dtype``."""
    return SINGLES if dtype == np.float32 else LANES


def aligned(n_vectors: int, dtype: Any = np.float64) -> np.ndarray:
    """Uninitialised flat work space for ``n_vectors`` vectors, on a cache-line boundary."""
    raw = np.empty((n_vectors + 1) * 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_vectors * 64].view(dtype)
