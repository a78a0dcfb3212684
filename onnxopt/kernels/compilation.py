"""`@kernel`: compile a function with numba at its first call, cached on disk where that is possible."""

import functools
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Kernel(Generic[P, R]):
    """A function that numba compiles when it is first called.

    * numba takes half a second to import, so it is imported by the first call and not with the module.
    * Machine code is kept in numba's cache folder. Where that cannot be written (an installation without a
      writable home, a full disk) the code is compiled for this process alone.
    * The interpreter lock is released while a kernel runs.

    A kernel must not call another one, and must not raise `OSError`.
    """

    def __init__(self, function: Callable[P, R], fastmath: frozenset[str]) -> None:
        self.function = function
        self._fastmath = fastmath
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the compiled function."""
        try:
            return self._compiled(*args, **kwargs)
        except OSError:
            # numba stores fresh machine code before it runs it, so nothing has been computed yet.
            self._compiled = self._compile(cache=False)
            return self._compiled(*args, **kwargs)

    @functools.cached_property
    def _compiled(self) -> Callable[P, R]:
        try:
            return self._compile(cache=True)
        except RuntimeError:  # "cannot cache function …: no locator available"
            return self._compile(cache=False)

    def _compile(self, *, cache: bool) -> Callable[P, R]:
        import numba  # noqa: PLC0415  (see the class)

        compile_with_options = numba.njit(
            cache=cache,
            nogil=True,
            error_model="numpy",  # a division must not branch to an exception, or the loop is not vectorized
            fastmath=set(self._fastmath) or False,
        )
        compiled: Callable[P, R] = compile_with_options(self.function)
        return compiled


def kernel(*fastmath: str) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Return a decorator that makes a `Kernel`.

    Args:
        *fastmath: LLVM's fast-math flags to allow, such as `"reassoc"`; none means strict IEEE 754.
    """

    def decorate(function: Callable[P, R]) -> Kernel[P, R]:
        return Kernel(function, frozenset(fastmath))

    return decorate
