# SPDX-License-Identifier: Apache-2.0
"""Everything that can be done to a host, in any order, whatever happens meanwhile: a model says what is there then.

A failure is told as the few steps that it takes. The same seed gives the same steps: ``MIZARNET_TEST_SEED``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing

import attrs
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

import mizarnet as mz
from mizarnet import Life
from tests.machine import choices, deeds
from tests.machine.deeds import Deed
from tests.machine.ground import Ground
from tests.machine.judge import judge_either, judge_rest, judged, judged_apart
from tests.machine.model import Model
from tests.support.depth import SEED, depth
from tests.support.injector import Fault, Injector
from tests.world import TUNNEL

STEPS, AT_ONCE = depth(300, 5000), 25
CHOICES = STEPS * 3 // 2
"""Some of them find nothing to do."""
SHRINKING_SECONDS = depth(60, 300)
HANDLES = 8


class Grounds:
    """The ground that is there, or a new one in place of one on which something went wrong.

    Attributes:
        steps: How many were taken on any.
        first: The first failure with the steps that led to it, since it may take chance to see it again.
    """

    def __init__(self, injector: Injector) -> None:
        self._injector = injector
        self._ground: Ground | None = None
        self.steps = 0
        self.first = ""

    def get(self) -> Ground:
        """One with nothing on it."""
        if self._ground is None:
            self._ground = Ground(self._injector)
        return self._ground

    def close(self) -> None:
        """End it."""
        if self._ground is not None:
            self._ground.close()
            self._ground = None


class Machine(RuleBasedStateMachine):
    """Some steps from nothing, and back.

    No rule has a precondition: what is there may depend on the moment at which something happened, and hypothesis takes
    a choice of rules that does for an error of the test. Where there is nothing to do, a rule does nothing.
    """

    def __init__(self, grounds: Grounds) -> None:
        super().__init__()
        self._grounds = grounds
        self._ground = grounds.get()
        self._model = self._ground.model
        self._handles: list[mz.Endpoint] = []
        self._steps: list[str] = []
        self._is_whole = True

    def _take(self, what: str, step: Callable[[], Model]) -> None:
        self._grounds.steps += 1
        self._steps.append(what)
        self._is_whole = False
        try:
            self._model = step()
        except Exception as error:
            self._grounds.first = self._grounds.first or "\n".join([*self._steps, str(error)])
            raise
        self._is_whole = True

    def _do(self, deed: Deed) -> None:
        self._take(repr(deed), lambda: judged(self._ground, self._model, deed))

    # -- endpoints

    @rule(spec=choices.specs)
    def create(self, spec: mz.EndpointSpec) -> None:
        self._do(deeds.create(spec))
        if spec.name in self._model.endpoints:
            handle = mz.Endpoint.open(self._ground.agent, spec.name, dead=True)
            self._handles = [handle, *self._handles[: HANDLES - 1]]

    @rule(specs=choices.several_specs)
    def create_many(self, specs: list[mz.EndpointSpec]) -> None:
        self._do(deeds.create_many(specs))

    @rule(name=choices.names, ip=choices.addresses)
    def update(self, name: str, ip: tuple[str, ...]) -> None:
        self._do(deeds.readdress(name, ip))

    @rule(names=choices.several_names)
    def delete_many(self, names: list[str]) -> None:
        self._do(deeds.delete_many(names))

    @rule(name=choices.names)
    def delete(self, name: str) -> None:
        self._do(deeds.delete(name))

    @rule(number=st.integers(0, HANDLES - 1))
    def delete_by_old_handle(self, number: int) -> None:
        if self._handles:
            self._do(deeds.delete_by(self._handles[number % len(self._handles)]))

    @rule()
    def old_handles_know_their_own(self) -> None:
        for handle in self._handles:
            known = self._model.endpoints.get(handle.name)
            if known is not None and known.instance == handle._record.instance:
                assert handle.state().life is known.life
            else:
                with pytest.raises(mz.EndpointNotFoundError):
                    handle.state()

    # -- what others do

    @rule(space=choices.spaces)
    def end_container(self, space: str) -> None:
        self._do(deeds.end_container(space))

    @rule(space=choices.spaces)
    def start_container(self, space: str) -> None:
        self._do(deeds.start_container(space))

    @rule(name=choices.names, how=st.sampled_from((deeds.delete_device, deeds.set_down, deeds.flush)))
    def damage(self, name: str, how: Callable[[str], Deed]) -> None:
        self._do(how(name))

    # -- tables, agent and switch

    @rule(deed=choices.table_writes)
    def write(self, deed: Deed) -> None:
        self._do(deed)

    @rule(deed=choices.attachments)
    def attach(self, deed: Deed) -> None:
        self._do(deed)

    # -- something happens to a call

    def _do_disturbed(self, deed: Deed, fault: Fault) -> None:
        self._take(f"{deed}, {fault}", lambda: judged_apart(self._ground, self._model, deed, fault))

    @rule(spec=choices.specs, fault=choices.faults)
    def create_disturbed(self, spec: mz.EndpointSpec, fault: Fault) -> None:
        self._do_disturbed(deeds.create(spec), fault)

    @rule(specs=choices.several_specs, fault=choices.faults)
    def create_many_disturbed(self, specs: list[mz.EndpointSpec], fault: Fault) -> None:
        self._do_disturbed(deeds.create_many(specs), fault)

    @rule(name=choices.names, ip=choices.addresses, fault=choices.faults)
    def update_disturbed(self, name: str, ip: tuple[str, ...], fault: Fault) -> None:
        """The same call again ends it, wherever it was cut off."""
        deed = deeds.readdress(name, ip)

        def again() -> Model:
            self._ground.do_apart(deed, fault)
            return judged(self._ground, self._model, deed)

        self._take(f"{deed}, {fault}, and again", again)

    @rule(name=choices.names, fault=choices.faults)
    def delete_disturbed(self, name: str, fault: Fault) -> None:
        self._do_disturbed(deeds.delete(name), fault)

    @rule(names=choices.several_names, fault=choices.faults)
    def delete_many_disturbed(self, names: list[str], fault: Fault) -> None:
        self._do_disturbed(deeds.delete_many(names), fault)

    @rule(deed=st.one_of(choices.table_writes, choices.attachments), fault=choices.faults)
    def write_or_attach_disturbed(self, deed: Deed, fault: Fault) -> None:
        self._do_disturbed(deed, fault)

    # -- everything ends, and is made again

    @rule(deed=choices.ends, point=st.integers(0, 60))
    def end_and_begin(self, deed: Deed, point: int) -> None:
        """All or nothing of what was there is there then, wherever it was killed."""
        if len(self._model.endpoints) > 1:
            fault = Fault(point, signal=signal.SIGKILL)
            self._take(f"{deed}, {fault}", lambda: self._end_and_begin(deed, fault))

    def _end_and_begin(self, deed: Deed, fault: Fault) -> Model:
        ground, before = self._ground, self._model
        after = attrs.evolve(ground.model, spaces=before.spaces)
        if any(before.of_life(Life.LIVE)):
            with pytest.raises(mz.InUseError):
                ground.agent.detach()
        if fault.point:
            ground.do_apart(deed, fault)
        else:
            assert ground.do(deed).error is None
            with pytest.raises(mz.StaleHandleError):
                ground.agent.state()
            for handle in self._handles:
                handle.delete()
        ground.attach()
        return judge_either(ground, [after, before] if fault.point else [after], f"{deed}, {fault}")

    @rule(point=st.integers(1, 60))
    def end_and_die_while_beginning(self, point: int) -> None:
        """Whoever attaches is killed; the next who does completes it."""
        if len(self._model.endpoints) > 1:
            fault = Fault(point, signal=signal.SIGKILL)
            self._take(f"attach, {fault}", lambda: self._end_and_die_while_beginning(fault))

    def _end_and_die_while_beginning(self, fault: Fault) -> Model:
        ground = self._ground
        mz.TransitAgent.detach(TUNNEL, netns=ground.host, force=True)
        ground.do_apart(deeds.attach(), fault)
        ground.attach()
        after = attrs.evolve(ground.model, spaces=self._model.spaces)
        return judge_either(ground, [after], f"attach, {fault}")

    def teardown(self) -> None:
        """Back to nothing; on a failure to new ground."""
        try:
            if self._is_whole:
                self._take("clear", self._clear)
        finally:
            if not self._is_whole:
                self._grounds.close()

    def _clear(self) -> Model:
        self._ground.clear()
        judge_rest(self._ground, self._ground.model)
        return self._ground.model


@pytest.fixture
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    with closing(Grounds(Injector.build(tmp_path_factory.mktemp("injector")))) as made:
        yield made


def test_the_model_says_what_is_there(grounds: Grounds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", SHRINKING_SECONDS)

    @seed(SEED)
    def machine() -> Machine:
        return Machine(grounds)

    limits = settings(
        max_examples=CHOICES // AT_ONCE,
        stateful_step_count=AT_ONCE,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[*HealthCheck],
        report_multiple_bugs=False,
    )
    try:
        run_state_machine_as_test(machine, settings=limits)
    except BaseException as error:
        error.add_note(f"seed {SEED}; first seen after\n{grounds.first}")
        raise
    print(f"{grounds.steps} steps, seed {SEED}")
    assert grounds.steps > STEPS * 3 // 4
