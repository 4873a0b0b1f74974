# SPDX-License-Identifier: GPL-2.0-only
"""Answers about an object that are asked for more than once: kept as long as its view lives."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from kbuild_klp.object.view import ObjectView

Rest = ParamSpec("Rest")
Answer = TypeVar("Answer")


def kept_with_view(
    function: Callable[Concatenate[ObjectView, Rest], Answer],
) -> Callable[Concatenate[ObjectView, Rest], Answer]:
    """Let a function of a view, and of what else can be hashed, find out each of its answers once."""
    known: WeakKeyDictionary[ObjectView, dict[object, Answer]] = WeakKeyDictionary()

    @wraps(function)
    def asked(view: ObjectView, /, *rest: Rest.args, **named: Rest.kwargs) -> Answer:
        answers = known.setdefault(view, {})
        key = rest, *named.items()
        if key not in answers:
            answers[key] = function(view, *rest, **named)
        return answers[key]

    return asked
