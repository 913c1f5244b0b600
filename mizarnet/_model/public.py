# SPDX-License-Identifier: Apache-2.0
"""Keeps inside the tree of errors what Python raises of itself: for wrong arguments, and for modules it cannot read."""

from __future__ import annotations

import errno
import functools
import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from mizarnet.errors import InvalidTypeError, KernelError, MissingLibraryError, MizarnetError

_T = TypeVar("_T")
_HAS_GONE = (
    "start the process anew, where it may read the package: its modules are imported with their first use"
)


def public(thing: _T) -> _T:
    """A function, or a class with its constructor, public methods and properties.

    An argument that the signature does not have, or lacks, is an ``InvalidTypeError`` instead of a ``TypeError``. A
    module that a call imports late and that cannot be read, as where a process is out of descriptors, is a
    ``KernelError`` instead of an ``OSError``; one that is not there, a ``MissingLibraryError``.
    """
    if not isinstance(thing, type):
        return cast("_T", _checked(cast("Callable[..., object]", thing)))
    for name, member in list(vars(thing).items()):
        if name in ("__init__", "__new__") or not name.startswith("_"):
            setattr(thing, name, _checked_member(member))
    return thing


def _checked_member(member: object) -> object:
    if isinstance(member, (classmethod, staticmethod)):
        bound = cast("staticmethod[..., Any]", member)
        return type(bound)(_checked(bound.__func__))
    if isinstance(member, property) and member.fget is not None:
        return property(_checked(member.fget), member.fset, member.fdel)
    return _checked(member) if inspect.isfunction(member) else member


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if isinstance(error, InvalidTypeError) or _fits(function, args, kwargs):
                raise
            raise _explained(error, function, kwargs) from None
        except OSError as error:
            if isinstance(error, MizarnetError) or not _is_of_import(error):
                raise
            raise KernelError(f"import {error.filename}", errno=error.errno or errno.EIO) from None
        except ImportError as error:
            if isinstance(error, MizarnetError):
                raise
            raise MissingLibraryError(str(error), hint=_HAS_GONE) from None

    return call


def _fits(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _is_of_import(error: OSError) -> bool:
    """Whether Python's import raised an error, and not a call of ours."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and last.tb_frame.f_code.co_filename.startswith("<frozen importlib")


def _explained(error: TypeError, function: Callable[..., Any], given: dict[str, Any]) -> InvalidTypeError:
    takes = [name for name in inspect.signature(function).parameters if name not in ("self", "cls", "_cls")]
    unknown = next((name for name in given if name not in takes), None)
    alike: list[str] = []
    with suppress(OSError, ImportError):  # it helps, and must not hinder
        from difflib import get_close_matches  # takes a millisecond, and few calls are wrong

        alike = get_close_matches(unknown or "", takes, n=1)
    named = re.search(r"'(\w+)'", str(error))
    return InvalidTypeError(
        str(error).replace(".__init__()", "()"),
        argument=unknown or (named[1] if named else ""),
        hint=f"did you mean {alike[0]}=?" if alike else f"it takes {', '.join(takes) or 'none'}",
    )
