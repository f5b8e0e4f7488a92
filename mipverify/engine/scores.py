"""Conditions on what a file gives, in terms of the scores that a network computes before its final functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.specification import Case, Condition
from mipverify.specification.preimage import on_scores


def score_case(network: Network, case: Case) -> Case:
    """The case in terms of the network's own output, which its original's final functions turn into what it gives.

    Raises InputError where the two are not the same question.
    """
    if not network.dropped:
        return case
    return replace(case, conditions=tuple(_score_condition(network, condition) for condition in case.conditions))


def require_order(network: Network, conditions: Iterable[Condition]) -> None:
    """Raise InputError unless the conditions say of the network's own output what they say of its original's."""
    for condition in conditions if network.dropped else ():
        if _score_condition(network, condition).rows != condition.rows:
            raise _beyond(network, condition, "it asks for more than their order")


def _score_condition(network: Network, condition: Condition) -> Condition:
    try:
        return on_scores(condition, network.dropped, network.output_size)
    except InputError as error:
        raise _beyond(network, condition, str(error)) from None


def _beyond(network: Network, condition: Condition, reason: str) -> InputError:
    what = "; ".join(network.notes)
    return InputError(
        f"{network.path or 'the network'}: {what}; condition {condition.label!r} of the property: {reason}"
    )
