"""A Django project that consists of its views only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import django.conf
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.test import override_settings
from django.urls import path

from asgi_connector._types import ASGIApp


@contextmanager
def django_app_of(views: dict[str, Callable[..., Any]]) -> Iterator[ASGIApp]:
    """Make an app with each of *views* at its path, for the block. Django's settings are global to the process."""
    urls: Any = ModuleType("urls_of_a_django_project")
    urls.urlpatterns = [path(each, view) for each, view in views.items()]
    if not django.conf.settings.configured:
        django.conf.settings.configure(SECRET_KEY="not a secret", LOGGING_CONFIG=None)
        django.setup()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, urls.__name__, urls)
        with override_settings(ROOT_URLCONF=urls.__name__, ALLOWED_HOSTS=["*"]):
            yield ASGIHandler()
