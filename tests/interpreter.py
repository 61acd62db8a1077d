"""Triton's interpreter without what it does in vain, which is most of its time.

When a kernel begins it makes the functions of `triton.language` interpreted ones, and undoes that when it ends. It
does so again whenever a function is called in a kernel. That is needed the first time alone, and where that function
reads `triton.language.core`, as those of triton's own library do, which no kernel reads. For every value it makes the
table of types and the shape of its block anew. And every sum and product of whole numbers is computed again in 64 bits,
which cannot differ at the sizes of tests.
"""

import os
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from types import ModuleType


@cache
def patch():
    if "TRITON_INTERPRET" not in os.environ or not find_spec("triton"):  # which is there on Linux alone
        return
    import triton.language as tl
    from triton.runtime import interpreter

    @cache
    def of_the_library(fn):
        return interpreter._patch_lang(fn)

    def call(self, *args, **kwargs):
        if any(value is tl.core for value in self.fn.__globals__.values() if isinstance(value, ModuleType)):
            of_the_library(self.fn)
        return self.rewrite()(*args, **kwargs)

    found, of_table = {}, interpreter._get_np_dtype

    def numpys(dtype):
        scalar = dtype.scalar
        if scalar.name not in found:
            found[scalar.name] = of_table(scalar)
        return found[scalar.name]

    interpreter.InterpretedFunction.__call__ = call
    interpreter._get_np_dtype = numpys
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
    remember_shapes(tl, interpreter.interpreter_semantic)


def remember_shapes(tl, semantic):
    """Make what blocks and values of one shape have in common once."""
    blocks, values = {}, {}
    new_block, new_value, of_one_shape = tl.block_type.__init__, tl.tensor.__init__, type(semantic).broadcast_impl_value

    def block(self, element_ty, shape):
        sizes = tuple(shape)
        if sizes not in blocks:
            new_block(self, element_ty, shape)
            blocks[sizes] = self.shape, self.numel, str(self.shape)
        self.element_ty = element_ty
        self.shape, self.numel, text = blocks[sizes]
        self.name = f"<{text}, {element_ty}>"

    def value(self, handle, type):
        sizes = tuple(type.shape) if type.is_block() else ()
        if sizes not in values:
            new_value(self, handle, type)
            values[sizes] = self.shape, self.numel
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = values[sizes]

    def broadcast(self, left, right):
        alike = left.type.is_block() and right.type.is_block() and left.type.shape is right.type.shape
        return (left, right) if alike else of_one_shape(self, left, right)

    tl.block_type.__init__, tl.tensor.__init__ = block, value
    type(semantic).broadcast_impl_value = broadcast
