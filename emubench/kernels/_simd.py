"""Vectors of 16 lanes for numba, one trajectory per lane.

Written out as vectors, a kernel has no scalar remainder loop and no run-time aliasing check, and all lanes see the same
instructions: the bytes of a trajectory depend neither on its lane nor on its neighbours, nor on the batch size.

Inside ``@jit`` functions: ``load(array, i)`` and ``store(array, i, v)`` access the 16 doubles at ``array[16 i]`` of a
flat array; vectors add, subtract and multiply with each other and with floats. On a CPU with narrower registers LLVM
splits them. Multiplications and additions may be fused, alike in all lanes (``contract``).
"""

from __future__ import annotations

import functools
import operator

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, models, register_model

LANES = 16
_IR = ir.VectorType(ir.DoubleType(), LANES)

jit = functools.partial(numba.njit, cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
"""``numba.njit`` as used by all kernels."""


class VectorType(types.Type):
    """Numba type of 16 doubles."""

    def __init__(self) -> None:
        super().__init__(name=f"vector{LANES}")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _IR)


def _splat(builder, value):
    single = builder.insert_element(ir.Constant(_IR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(_IR, ir.Undefined), mask)


def _arithmetic(op, instruction: str) -> None:
    @infer_global(op)
    class _Typing(ConcreteTemplate):
        cases = [
            signature(vector, vector, vector),
            signature(vector, vector, types.float64),
            signature(vector, types.float64, vector),
        ]

    def lower(context, builder, sig, args):
        lhs, rhs = (
            a if t is vector or t == vector else _splat(builder, a) for a, t in zip(args, sig.args, strict=True)
        )
        return getattr(builder, instruction)(lhs, rhs)

    for case in _Typing.cases:
        lower_builtin(op, *case.args)(lower)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    offset = builder.mul(index, ir.Constant(index.type, LANES))
    return builder.bitcast(builder.gep(data, [offset]), _IR.as_pointer())


@intrinsic
def load(typingctx, array, index):
    """The vector at ``array[16 index : 16 index + 16]``."""

    def codegen(context, builder, sig, args):
        value = builder.load(_pointer(context, builder, sig.args[0], *args))
        value.align = 8
        return value

    return vector(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """Write ``value`` to ``array[16 index : 16 index + 16]``."""

    def codegen(context, builder, sig, args):
        instruction = builder.store(args[2], _pointer(context, builder, sig.args[0], *args[:2]))
        instruction.align = 8
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


def aligned(n_vectors: int) -> np.ndarray:
    """Uninitialised flat work space for ``n_vectors`` vectors, on a cache-line boundary."""
    raw = np.empty(n_vectors * LANES + 8)
    start = (-raw.ctypes.data % 64) // 8
    return raw[start : start + n_vectors * LANES]
