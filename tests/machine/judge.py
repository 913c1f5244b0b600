# SPDX-License-Identifier: Apache-2.0
"""Whether what there is can have come of what was done."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from mizarnet import Life
from tests.crash.attempt import Ended
from tests.machine.deeds import Deed
from tests.machine.ground import Ground
from tests.machine.look import Seen, faults, is_seen, look, numbered
from tests.machine.model import HALF, TABLES, End, Known, Model
from tests.support.injector import Fault

PATIENCE = 3.0
"""Seconds for what the kernel does later."""


def judged(ground: Ground, before: Model, deed: Deed) -> Model:
    """Do something, undisturbed; what is there then, which must be one of its ends."""
    told = ground.do(deed)
    ends = [end for end in deed.ends(before) if told.error == (end.error and end.error.__name__)]
    wanted = sorted({str(end.error and end.error.__name__) for end in deed.ends(before)})
    assert ends, f"{deed} ends with {told.text or 'no error'}, not with {' or '.join(wanted)}"
    return _settled(ground, before, Possible.of_ends(before, ends), deed)


def judged_apart(ground: Ground, before: Model, deed: Deed, fault: Fault) -> Model:
    """Let something happen to it; what is there then, each part of which is as before, or as at one of its ends."""
    told = ground.do_apart(deed, fault)
    ends = [*deed.ends(before), *deed.disturbed(before)]
    _assert_told(deed, fault, told, ends)
    if told is not None and told.error is None:
        succeeded = [end for end in deed.ends(before) if end.error is None]
        return _settled(ground, before, Possible.of_ends(before, succeeded), deed)
    halves = {signal.SIGKILL: HALF, signal.SIGINT: ()}.get(fault.signal, (Life.DELETING,))
    return _settled(ground, before, Possible.between(before, ends, halves), deed)


def _assert_told(deed: Deed, fault: Fault, told: Ended | None, ends: Sequence[End]) -> None:
    if told is None:
        assert fault.signal == signal.SIGKILL, f"the process that was to {deed} died"
        return
    usual = [end.error and end.error.__name__ for end in ends]
    if told.error in usual:
        return
    assert told.error is not None, f"{deed} succeeds"
    if fault.signal:
        assert told.interrupted, f"{deed} ends with {told.text}"
    else:
        assert told.typed, f"{deed} ends with {told.text}"
    assert not told.leaked, f"{deed} leaves {told.leaked}"


@attrs.frozen
class Possible:
    """What may be there.

    Attributes:
        endpoints: What each name may mean; None: nothing.
        entries: What each table may have at a key.
        switch: Whether the host may be a switch.
        spaces: Names of the namespaces that there are.
        loose: Whether the devices of endpoints may lack anything.
    """

    endpoints: dict[str, list[Known | None]]
    entries: dict[str, dict[Any, list[tuple[Any, str] | None]]]
    switch: list[bool | None]
    spaces: frozenset[str]
    loose: bool = False

    @classmethod
    def of_ends(cls, before: Model, ends: Sequence[End]) -> Possible:
        """What some ends say."""
        models = [end.model for end in ends]
        names = {name for model in (before, *models) for name in model.endpoints}
        found = {name: [model.endpoints.get(name) for model in models] for name in names}
        for end in ends:
            for name in end.may_go:
                found[name].append(None)
        known = {
            table: {key for model in (before, *models) for key in model.entries[table]} for table in TABLES
        }
        entries = {
            table: {key: [model.entries[table].get(key) for model in models] for key in keys}
            for table, keys in known.items()
        }
        return cls(found, entries, [model.switch for model in models], models[0].spaces)

    @classmethod
    def between(cls, before: Model, ends: Sequence[End], halves: Sequence[Life]) -> Possible:
        """What there may be if a deed stopped anywhere, and left endpoints so far.

        What it began to make in vain it also takes back, and that may stop anywhere, too.
        """
        found = cls.of_ends(before, [End(before), *ends])
        tried = [known for end in ends for known in end.tried]
        for name in {known.spec.name for known in tried} - found.endpoints.keys():
            found.endpoints[name] = [None]
        for name, choices in found.endpoints.items():
            there = before.endpoints.get(name)
            taken_back = {known for known in tried if known.spec.name == name}
            made = {each for each in choices if each is not None and not each.instance} | taken_back
            goes = there is not None and (None in choices or bool(made))
            if halves:
                choices += [attrs.evolve(each, life=life) for each in taken_back for life in HALF]
            if Life.MAKING in halves:
                choices += [attrs.evolve(each, life=Life.MAKING) for each in made]
            if Life.DELETING in halves and goes and there is not None:
                choices.append(attrs.evolve(there, life=Life.DELETING))
            if goes and made:
                choices.append(None)  # the old one is gone, and the new one not there yet
        changed = len(set(found.switch)) > 1
        return attrs.evolve(found, switch=[*found.switch, *([None] if changed else [])], loose=True)

    def chosen(self, seen: Seen) -> Model:
        """The model that fits what is seen; where none does, what is seen is left out."""
        endpoints = {name: self._chosen(name, known) for name, known in seen.endpoints.items()}
        entries = {
            table: {
                key: entry
                for key, choices in keys.items()
                for entry in choices
                if entry is not None and numbered({key: entry})[key] == seen.entries[table].get(key)
            }
            for table, keys in self.entries.items()
        }
        return Model(
            self.spaces, {name: known for name, known in endpoints.items() if known}, entries, seen.switch
        )

    def _chosen(self, name: str, seen: Known) -> Known | None:
        for known in self.endpoints.get(name, ()):
            if known is None:
                continue
            if self.loose:
                known = attrs.evolve(known, up=seen.up, addresses=seen.addresses)
            if is_seen(known, seen):
                return attrs.evolve(known, instance=seen.instance)
        return None

    def complaints(self, seen: Seen, before: Model) -> Iterator[str]:
        """What is seen and cannot be, and what is not seen and should."""
        model = self.chosen(seen)
        for name, known in seen.endpoints.items():
            if name not in model.endpoints:
                yield f"{name} is {known}, not one of {self.endpoints.get(name, [])}"
            elif _is_new(model.endpoints[name], before) and known.instance in _instances(before):
                yield f"{name} is the old one"
        for name, choices in self.endpoints.items():
            if name not in seen.endpoints and None not in choices:
                yield f"{name} is gone, and not one of {choices}"
        for table, keys in self.entries.items():
            there = seen.entries[table]
            yield from (
                f"{table} has {key}: {there[key]}" for key in there if key not in model.entries[table]
            )
            for key, choices in keys.items():
                if key not in there and None not in choices:
                    yield f"{table} lacks {key}, which is one of {choices}"
        if seen.switch not in self.switch and None not in self.switch:
            yield f"the switch is {seen.switch}, not {self.switch}"


def _is_new(known: Known, before: Model) -> bool:
    there = before.endpoints.get(known.spec.name)
    return there is None or there.instance != known.instance


def _instances(model: Model) -> set[int]:
    return {known.instance for known in model.endpoints.values()}


def _settled(ground: Ground, before: Model, possible: Possible, deed: Deed) -> Model:
    """Look until it fits; what does not within its time is told."""
    deadline = time.monotonic() + (PATIENCE if deed.deferred else 0)
    while True:
        seen = look(ground)
        model = possible.chosen(seen)
        wrong = [*possible.complaints(seen, before), *faults(ground, model)]
        if not wrong or time.monotonic() > deadline:
            break
        time.sleep(0.005)
    assert not wrong, "\n".join([f"after {deed}:", *wrong])
    return model


def judge_rest(ground: Ground, model: Model) -> None:
    """Nothing has changed since."""
    _settled(ground, model, Possible.of_ends(model, [End(model)]), Deed("nothing", _nothing, _nothing))


def judge_either(ground: Ground, models: Sequence[Model], what: str) -> Model:
    """What there is, which must be one of these as a whole."""
    seen = look(ground)
    told: list[str] = []
    for model in models:
        possible = Possible.of_ends(model, [End(model)])
        wrong = [*possible.complaints(seen, model)]
        if not wrong:
            chosen = possible.chosen(seen)
            left = [*faults(ground, chosen)]
            assert not left, "\n".join([f"after {what}:", *left])
            return chosen
        told += ["either", *wrong]
    raise AssertionError("\n".join([f"after {what}:", *told]))


def _nothing(_: object) -> Any:
    return []
