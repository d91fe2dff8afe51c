"""The check that an object can be an application, of ASGI or of aiohttp.web, with advice for common mistakes.

Only objects that cannot work are refused. An object whose parameters are not known for sure is accepted.
"""

import functools
import inspect
import sys
from collections.abc import Awaitable, Mapping
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from typing_extensions import TypeIs

if TYPE_CHECKING:
    from aiohttp.web import Application

_ASGI_ARGUMENTS: Final = 3
_PLACEHOLDER: Final[object] = getattr(functools, "Placeholder", object())  # in a partial, from Python 3.14 on
_MIDDLEWARE: Final = "a2wsgi.WSGIMiddleware"
_SINGLE_CALLABLE: Final = "asgiref.compatibility.guarantee_single_callable"


def check_app(app: object) -> None:
    """Raise `TypeError` if *app* is not an application of ASGI or of aiohttp.web. The error says what to write instead.

    A coroutine is closed, so that Python does not also warn that it was never awaited.
    """
    if _is_plainly_an_app(app) or is_web_app(app):
        return
    mistake = _mistake_in_class(app) if isinstance(app, type) else _mistake_in(app)
    if mistake is not None:
        close_coroutine(app)
        raise TypeError(f"{app!r} is not an ASGI application: {mistake}")


def is_web_app(app: object) -> "TypeIs[Application]":
    """Whether *app* is an `aiohttp.web.Application`. The module is not imported for that: who has one has done so."""
    module = sys.modules.get("aiohttp.web_app")
    return module is not None and isinstance(app, module.Application)


def check_factory(factory: object) -> None:
    """Raise `TypeError` if *factory* clearly is no callable without arguments that makes an app."""
    if inspect.iscoroutine(factory):
        close_coroutine(factory)
        raise TypeError(f"factory must be a function that makes the app, not {factory!r}, the call of one")
    if is_web_app(factory):
        raise TypeError(f"factory must be a function that makes the app; to mount {factory!r} itself, leave it out")
    if not callable(factory):
        raise TypeError(f"factory must be callable without arguments, not {factory!r}")
    call = _call_of(factory)
    if call is not None and not call.takes(0):
        raise TypeError(f"factory must be callable without arguments, but {factory!r} takes {call}")


def check_root_path_for(app: object, root_path: object) -> None:
    """Raise `ValueError` if *root_path*, a setting of `Mount`, is given for an ``aiohttp.web.Application``."""
    if is_web_app(app) and isinstance(root_path, str) and root_path:
        raise ValueError(f"root_path={root_path!r} for {app!r}: there is none in aiohttp.web")


def close_coroutine(value: object) -> None:
    """Close *value* if it is a coroutine that has not been started."""
    if inspect.iscoroutine(value) and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
        value.close()


def _is_plainly_an_app(app: object) -> bool:
    """Whether *app* is an async function of three parameters, or an object whose ``__call__`` is one.

    Nearly all apps are, and this check is much faster than reading a signature.
    """
    function, bound = (app, 0) if isinstance(app, FunctionType) else (_method_of(type(app), "__call__"), 1)
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    is_async = bool(code.co_flags & inspect.CO_COROUTINE)
    return is_async and code.co_argcount == bound + _ASGI_ARGUMENTS and not code.co_kwonlyargcount


def _mistake_in(app: object) -> str | None:
    """Say what is wrong with *app* and what to write instead; `None` if it may be an app."""
    if inspect.iscoroutine(app):
        return f"it has to be awaited; write await {app.__name__}(...)"
    if not callable(app):
        awaitable = isinstance(app, Awaitable)
        return "it has to be awaited" if awaitable else "it cannot be called with (scope, receive, send)"
    call = _call_of(app)
    if call is None:
        return None
    if call.is_wsgi:
        return f"it takes {call}, as a WSGI application does; write {_MIDDLEWARE}(app)"
    if call.takes(_ASGI_ARGUMENTS):
        return None
    if call.takes(0):
        return _mistake_in_factory(app, call.is_async)
    if call.takes(1) and call.names[0] == "scope" and not call.is_async:
        return f"it takes {call}, as an application of ASGI 2 does; write {_SINGLE_CALLABLE}(app)"
    if call.takes(2) and not call.is_async:
        return f"it takes {call}, and not (scope, receive, send); if it is a WSGI application, write {_MIDDLEWARE}(app)"
    return f"it takes {call}, and not (scope, receive, send)"


def _mistake_in_factory(app: object, is_async: bool) -> str:
    name = getattr(app, "__name__", "") if isinstance(app, FunctionType | MethodType) else ""
    what = "make_app" if not name.isidentifier() else name
    call = f"{'await ' if is_async else ''}{what}()"
    return f"it needs no arguments; if it makes the application, write {call}, or Mount(factory={what})"


def _mistake_in_class(cls: type[Any]) -> str | None:
    """Do the same as `_mistake_in()` for a class. A class is a mistake, because an app is an instance of one."""
    if _may_give_anything(cls):
        return None
    name = cls.__name__
    if hasattr(cls, "as_asgi"):
        return f"it is a class; write {name}.as_asgi()"  # as the documentation of Channels says
    init, instance = _call_of_method(cls, "__init__", cls), _call_of_method(cls, "__call__", cls)
    if init is not None and init.is_wsgi:
        return f"it takes {init}, as a WSGI application does; write {_MIDDLEWARE}({name})"
    if init is not None and init.names[:1] == ["scope"] and instance is not None and instance.takes(2):
        return f"it is a class, as an application of ASGI 2 may be; write {_SINGLE_CALLABLE}({name})"
    return f"it is a class; write {name}({'' if init is None or init.takes(0) else '...'})"


def _may_give_anything(cls: type[Any]) -> bool:
    """Whether calling *cls* may return an awaitable, as with Starlette's ``HTTPEndpoint``."""
    made_by_new = isinstance(_method_of(cls, "__new__"), staticmethod)  # true of every __new__ written in Python
    return hasattr(cls, "__await__") or made_by_new or type(cls).__call__ is not type.__call__


class _Call(NamedTuple):
    """A call of a Python function, with the arguments that are already known."""

    function: FunctionType
    arguments: tuple[object, ...]
    keywords: Mapping[str, object]

    def takes(self, number: int) -> bool:
        """Whether the function accepts *number* further positional arguments.

        `inspect.signature` cannot be used. It follows decorators, which may change the parameters, and from Python 3.14
        on it evaluates annotations.
        """
        function: Any = self.function  # type checkers treat a function in a class as a bound method
        code = self.function.__code__
        given = len(self.arguments) + number
        if given > code.co_argcount and not code.co_flags & inspect.CO_VARARGS:
            return False
        if not self.keywords.keys().isdisjoint(code.co_varnames[code.co_posonlyargcount : given]):
            return False
        by_position = code.co_varnames[given : code.co_argcount - len(function.__defaults__ or ())]
        by_keyword = [name for name in self.keyword_names if name not in (function.__kwdefaults__ or {})]
        return self.keywords.keys() >= {*by_position, *by_keyword}

    @property
    def names(self) -> list[str]:
        """The names of the positional parameters that have no argument yet."""
        code = self.function.__code__
        names = code.co_varnames[len(self.arguments) : code.co_argcount]
        return [name for name in names if name not in self.keywords]

    @property
    def keyword_names(self) -> tuple[str, ...]:
        """The names of the keyword-only parameters."""
        code = self.function.__code__
        return code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]

    @property
    def is_wsgi(self) -> bool:
        return self.names[1:2] == ["start_response"]

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def __str__(self) -> str:
        star = ["*"] if self.keyword_names else []
        return f"({', '.join([*self.names, *star, *self.keyword_names])})"


def _call_of(app: Any) -> _Call | None:
    """Return the function that a call of *app* runs; `None` if that is not known for sure."""
    if isinstance(app, FunctionType):
        return _Call(app, (), {})
    if isinstance(app, MethodType):
        return _with(_call_of(app.__func__), (app.__self__,), {})
    if type(app) is functools.partial:
        has_gaps = any(argument is _PLACEHOLDER for argument in app.args)
        return None if has_gaps else _with(_call_of(app.func), app.args, app.keywords)
    if inspect.isclass(app):
        return None if _may_give_anything(app) else _call_of_method(app, "__init__", app)
    return _call_of_instance(app)


def _call_of_instance(instance: object) -> _Call | None:
    return _call_of_method(type(instance), "__call__", instance)


def _call_of_method(cls: type[Any], name: str, instance: object) -> _Call | None:
    method = _method_of(cls, name)
    return _Call(method, (instance,), {}) if isinstance(method, FunctionType) else None


def _method_of(cls: type[Any], name: str) -> object:
    """Return the attribute *name* of the class or one of its bases, without calling descriptors."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _with(call: _Call | None, arguments: tuple[object, ...], keywords: Mapping[str, object]) -> _Call | None:
    """Return the same call with more known arguments."""
    if call is None:
        return None
    return call._replace(arguments=(*call.arguments, *arguments), keywords={**call.keywords, **keywords})
