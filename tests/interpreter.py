"""Triton's interpreter without what it does in vain, which is more than half of its time.

When a kernel begins it makes the functions of `triton.language` interpreted ones, and undoes that when it ends. It
does so again whenever a function is called in a kernel. That is needed the first time alone, and where that function
reads `triton.language.core`, as those of triton's own library do, which no kernel reads. And for every value it makes
the table of types anew.
"""

from functools import cache
from types import ModuleType


@cache
def patch():
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
