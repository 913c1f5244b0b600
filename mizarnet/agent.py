# SPDX-License-Identifier: Apache-2.0
"""The transit agent of a host: two programs on the tunnel, and the tables that they read.

Modules that creating an endpoint does not need are imported where they are used: a fresh process pays for each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Literal, Self, final

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.hooks import Place, deciding_hook, wanted_places
from mizarnet._datapath.loader import Capacity, build_text
from mizarnet._datapath.lock import SHARED_HOST
from mizarnet._datapath.losses import Watch, read_losses
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel import bpf
from mizarnet._kernel.closing import Closing
from mizarnet._kernel.jobs import whole
from mizarnet._model import arguments
from mizarnet._model.arguments import IPNetwork
from mizarnet._model.described import Described
from mizarnet._model.finding import Finding, Health, worst_first
from mizarnet._model.html import table
from mizarnet._model.public import public
from mizarnet._model.specs import (
    KEEP,
    AddressLike,
    AgentSpec,
    Hook,
    Keep,
    NetnsLike,
    PrefixLike,
    Shortcut,
    parse_member,
)
from mizarnet._model.stats import Stats, unpack_stats
from mizarnet.errors import AgentNotFoundError, InvalidTypeError, MizarnetError, StaleHandleError
from mizarnet.tables import EndpointTable, NetworkTable, PeerSet
from mizarnet.tunnel import Tunnel, device_of, place_of, successor_of

if TYPE_CHECKING:
    from mizarnet._datapath.shortcuts import Situation
    from mizarnet._datapath.walk import Site
    from mizarnet._model.explanation import Explanation
    from mizarnet._model.question import OfEndpoint
    from mizarnet.events import Events

MOST_ENDPOINTS = 1 << 24
MOST_LOCAL = 1 << 16


@public
@attrs.frozen
class ShortcutState(Described):
    """The shortcut on the way in, as the kernel described it.

    Attributes:
        wanted: Whether there shall be one.
        on: Whether its program is attached to the underlay.
        reason: Why it is not on although it is wanted, or what came to stand against it while it is on, as a sentence
            without a full stop; else empty.
    """

    wanted: Shortcut
    on: bool
    reason: str


@public
@attrs.frozen
class AgentState(Described):
    """An attached agent as the kernel described it.

    Attributes:
        up: Whether the tunnel's device exists and is up.
        attached: Whether a program of ours is attached, for each place that needs one, such as ``"guard/tcx"``.
        programs: Kernel ids of the attached programs, by place.
        verified: Number of instructions that the verifier processed for each attached program, by place.
        memory: Kernel memory of the maps, in bytes.
        ahead: Programs of other software that run before ours, such as ``"ingress: name (id)"``; each one can let
            frames past the agent or the guard.
        shortcut: Whether the shortcut on the way in is on, and why not.
    """

    up: bool
    attached: Mapping[str, bool]
    programs: Mapping[str, int]
    verified: Mapping[str, int]
    memory: int
    ahead: tuple[str, ...]
    shortcut: ShortcutState


@public
@final
class TransitAgent(Described, Closing):
    """A handle of the transit agent of one tunnel. Closing it, or leaving its ``with``, touches nothing in the kernel.

    Made by :meth:`attach` and :meth:`open`. Programs and maps belong to the tunnel's device: they stay when the process
    ends, and go with the device.

    Attributes:
        tunnel: Tunnel that the agent is attached to, as a handle of the agent's own.
        hook: Kind of hook whose program decides first: tcx, or else the filters of a clsact.
        capacity: Sizes of the tables, in entries.
        endpoints: Live view of where each address of a VNI lives, an entry for each address of an endpoint.
        networks: Live view of the prefixes of each VNI.
        peers: Live view of the underlay prefixes that tunnel packets are accepted from.
        created: Whether the call that made this handle attached the programs, or completed an unfinished attachment.

    Raises:
        ClosedError: In each method, after :meth:`close`.
        ForkedError: In each method, in a child of the process that made the handle.
        StaleHandleError: In each method but :meth:`detach`: the agent was detached or replaced, or the tunnel is gone;
            :meth:`reopen` mends the handle.
        AgentNotFoundError: In each method but :meth:`detach`: another program took agent and guard off every hook.
        LayoutError: In each method but :meth:`upgrade` and :meth:`reopen`: an older version of this package attached
            the agent, with tables of another schema, or a newer one has moved them to its own.
        LockTimeoutError: In :meth:`attach`, :meth:`update`, :meth:`upgrade`, :meth:`reopen` and :meth:`detach`:
            another process held the host's lock for 10 s.
        PrivilegeError: In each method that attaches, replaces or detaches programs: a capability is missing.
    """

    _DESCRIBED = ("tunnel", "hook", "capacity", "created")

    def __init__(self, tunnel: Tunnel, datapath: DataPath) -> None:
        """Not for users: see :meth:`attach` and :meth:`open`."""
        self.tunnel: Tunnel = tunnel
        self.created: bool = False
        self._datapath = datapath
        self._watch = Watch(datapath.host)
        self.hook: Hook = _hook(datapath)
        self.capacity: Capacity = datapath.capacity
        place = place_of(tunnel)
        self.endpoints: EndpointTable = EndpointTable(datapath, place)
        self.networks: NetworkTable = NetworkTable(datapath, place)
        self.peers: PeerSet = PeerSet(datapath, place)

    @classmethod
    @whole
    def attach(
        cls,
        tunnel: Tunnel,
        *,
        peers: Iterable[PrefixLike] | None = None,
        max_endpoints: int | None = None,
        max_local: int | None = None,
        hook: Hook | Literal["auto", "tcx", "clsact"] = "auto",
        shortcut: Shortcut | Literal["off", "auto"] | None = None,
    ) -> Self:
        """Attach agent and guard to the tunnel and bring it up; adopt an agent that is attached as asked for.

        Programs that were taken off a hook are attached again, and an attachment that another process began is
        completed. The tables are kept as long as any program is attached.

        Args:
            tunnel: Tunnel of this host; the handle stays the caller's.
            peers: Underlay prefixes that tunnel packets are accepted from, added by hand, and compared with all peers
                of an attached agent, whichever feed added them; None: the underlay's on-link prefixes, of which one
                must contain the tunnel's address.
            max_endpoints: Room for endpoints, local and remote together, 1 to 16,777,216; None: 65,536.
            max_local: Room for endpoints of this host, 1 to 65,536; None: 4,096.
            hook: ``"auto"``: tcx, and clsact filters behind it, which decide at once if another program empties the
                tcx hook; before kernel 6.6 clsact alone. ``"tcx"`` or ``"clsact"``: that kind alone.
            shortcut: ``"auto"``: plain tunnel packets are taken out of their tunnel on the underlay, past the host's
                INPUT rules and connection tracking for the tunnel's port, where the kernel (6.6) and the underlay's
                device allow it. ``"off"``: all of them go the kernel's way. None: off, or as it stands.

        Raises:
            UnsupportedError: This kernel does not have the hook.
            ExistsError: The attached agent differs from a given argument, a filter of another program has the place
                of ours, or the UDP port is taken.
            PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN``, ``CAP_PERFMON`` or ``CAP_SYS_ADMIN`` is missing.
            VerifierError: The kernel's verifier rejected a program.
            LayoutError: Another version of this package attached the existing agent.
            UnderlayNotFoundError: The underlay is gone, or this host no longer has the tunnel's address.
            MtuError: The underlay's MTU is too small for the tunnel by now.
        """
        device = device_of(tunnel)
        spec = AgentSpec(
            hook=None if hook == "auto" else parse_member(Hook, hook, argument="hook"),
            max_endpoints=_room(max_endpoints, argument="max_endpoints", most=MOST_ENDPOINTS),
            max_local=_room(max_local, argument="max_local", most=MOST_LOCAL),
            peers=None if peers is None else _prefixes(peers),
            shortcut=None if shortcut is None else parse_member(Shortcut, shortcut, argument="shortcut"),
        )
        from mizarnet._datapath import install

        # Those who only look again do not keep out the writers of endpoints, nor wait for them.
        with device.host.locked(SHARED_HOST):
            if install.stands(device, spec):
                return cls.open(tunnel)
        with device.host.locked():
            created = install.install(device, spec)
            try:
                agent = cls.open(tunnel)
            except BaseException as error:
                if created:
                    _undo(device, error)
                raise
        agent.created = created
        return agent

    @classmethod
    def open(cls, tunnel: Tunnel | str, *, netns: NetnsLike | None = None) -> Self:
        """Make a handle of the agent that is attached to a tunnel; nothing in the kernel is changed.

        If an older version of this package attached the agent, with tables of another schema, there is a warning, and
        the handle raises ``LayoutError`` until :meth:`upgrade`.

        Args:
            tunnel: Handle of the tunnel, or its name.
            netns: Host namespace of a tunnel given by name; None: the calling thread's.

        Raises:
            AgentNotFoundError: No agent is attached, attaching or detaching it is unfinished, or the tunnel was moved
                here from another network namespace.
            LayoutError: A newer version of this package attached it, or one whose tables cannot be converted.
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing, without which the kernel opens no program by id.
            TunnelNotFoundError: There is no such tunnel.
        """
        with ExitStack() as undo:
            if isinstance(tunnel, Tunnel):
                if netns is not None:
                    raise InvalidTypeError("netns= goes with the name of a tunnel", argument="netns")
                own = undo.enter_context(tunnel.copy())
            else:
                own = undo.enter_context(Tunnel.open(tunnel, netns=netns))
            datapath = undo.enter_context(closing(DataPath.open(device_of(own).hooks)))
            datapath.warn_if_outdated()
            agent = cls(own, datapath)
            undo.pop_all()
            return agent

    def stats(self) -> Stats:
        """Verdicts of each program since the agent was attached: packets and bytes, summed over the CPUs.

        ``lost`` has what the tunnel's device lost behind them, since it was created.
        """
        words = self._datapath.maps.verdicts.sum_words()[1]
        return unpack_stats(words, read_losses(device_of(self.tunnel)))

    def state(self) -> AgentState:
        """Programs, memory and hooks, read from the kernel."""
        from mizarnet._datapath import shortcuts

        found, maps = self._datapath.survey(), self._datapath.maps
        link = device_of(self.tunnel).find()
        programs = {place: each.program_id for place, each in found.standing.items()}
        return AgentState(
            up=link is not None and link.up,
            attached={str(place): place in programs for place in wanted_places(maps.read_meta().layers)},
            programs={str(place): program_id for place, program_id in programs.items()},
            verified=dict(_verified(programs)),
            memory=sum(each.memory for each in maps.all()),
            ahead=tuple(_named(found.ahead)),
            shortcut=_shortcut_state(shortcuts.look(self._datapath.host, maps, near=True)),
        )

    def check(self) -> list[Finding]:
        """What about the agent is not as it should be, the worst first; none is the good case.

        It covers programs and constants, the switch, entries of endpoints that do not exist, and the ways to the hosts
        that the tables name. A read without a lock; each finding was seen twice, 0.1 s apart. An agent or a tunnel that
        is gone is a finding, too.
        """
        from mizarnet._datapath.checks.confirm import confirmed

        return worst_first(confirmed(self._look))

    def _look(self) -> list[Finding]:
        from mizarnet._datapath.checks import look_at_agent

        return look_at_agent(device_of(self.tunnel), self._datapath)

    def explain(
        self,
        source: OfEndpoint | AddressLike | None,
        destination: OfEndpoint | AddressLike | None = None,
        *,
        vni: int | None = None,
        protocol: Literal["icmp", "tcp", "udp", "arp", "nd"] = "icmp",
        port: int | None = None,
        size: int | None = None,
        frame: bytes | None = None,
        outer: AddressLike | None = None,
    ) -> Explanation:
        """What would become of a packet, and why, as far as this host knows; nothing is sent or changed.

        The living state is read: the sender's device, address, route and neighbour, then agent and guard on the tables
        in use, then the underlay's route, neighbour and MTU. On the receiver's host: the guard, the receiver's device,
        address, and the way of an answer. What another host makes of the packet, that host's agent explains with
        ``outer=``; :func:`explain_path` joins both.

        Args:
            source: Endpoint that sends the packet, its name, or its address; a text that reads as an address is one.
                None with ``frame`` and ``outer``.
            destination: Endpoint that it is for, its name on this host, or its address.
            vni: VNI of both, where neither is an endpoint; always with ``outer``.
            protocol: What the packet carries; ``"arp"`` and ``"nd"`` ask for the MAC of the destination.
            port: Destination port of TCP or UDP, 1 to 65,535; None: any.
            size: Bytes of the IP packet, 28 to 65,535; None: a small one. A longer one than the device takes is the
                stack's to cut with TCP, and goes no further with the others.
            frame: Ethernet frame that the source sends by a socket, 14 to 16,000 bytes, in place of destination,
                protocol, port and size. Its origin is taken as the endpoint's own.
            outer: Underlay address of a peer that the packet comes from, in place of an endpoint of this host.

        Returns:
            The steps of the packet's way. It is true if nothing is in its way that can be known.

        Raises:
            InvalidValueError: An argument cannot be right, or does not fit to the others or to the endpoint.
            InvalidTypeError: An argument has the wrong type.
            EndpointNotFoundError: No endpoint of this host has a name that was given, or is that of the source.
        """
        from mizarnet._datapath.walk import explain
        from mizarnet._model.question import Question

        question = Question.check(
            source,
            destination,
            vni=vni,
            protocol=protocol,
            port=port,
            size=size,
            frame=frame,
            outer=outer,
        )
        return explain(site_of(self), question)

    @whole
    def events(
        self,
        *,
        drops: bool = True,
        passes: bool = False,
        vni: int | None = None,
        endpoint: OfEndpoint | str | None = None,
        address: AddressLike | None = None,
        sample: int = 1,
    ) -> Events:
        """Begin to read what becomes of frames, while it happens.

        The programs choose the frames: what is not asked for costs nothing but a look. All that is given must fit. What
        programs and tables count does not depend on whether anybody reads.

        Args:
            drops: Whether frames that were dropped are wanted.
            passes: Whether frames that went on are wanted, each once for every program that it passes.
            vni: VNI of the frames; None: any. Frames whose VNI nobody proved are of none.
            endpoint: Endpoint of this host, or its name, that sends or receives the frames; None: any.
            address: Source or destination of the frames; None: any.
            sample: Of so many frames on each CPU one is wanted, 1 to 4,294,967,295.

        Returns:
            A reader; close it, or use it in a ``with``.

        Raises:
            InvalidValueError: An argument cannot be right, or neither drops nor passes are wanted.
            InvalidTypeError: An argument has the wrong type.
            EndpointNotFoundError: No endpoint of this host has that name.
            CapacityError: Four others read events of this agent.
            LockTimeoutError: Another process held the lock of the readers' places for 10 s.
            PrivilegeError: ``CAP_BPF`` or ``CAP_SYS_ADMIN`` is missing.
            BpfError: There is no memory for the reader's events.
        """
        from mizarnet._model.event import Interest, name_of
        from mizarnet.events import read_events  # with asyncio

        interest = Interest.check(drops=drops, passes=passes, vni=vni, address=address, sample=sample)
        name = None if endpoint is None else name_of(endpoint, argument="endpoint")
        return read_events(self._datapath, interest, endpoint=name, at=_at(self.tunnel))

    def health(self) -> Health:
        """Whether agent and tunnel work, for a probe: what :meth:`Host.health` says of them alone."""
        from mizarnet._datapath import health

        device = device_of(self.tunnel)
        self._watch.look([device])
        return health.of_agent(device, self._datapath, self._watch.rates)

    @property
    def build(self) -> str:
        """Build of mizarnet that attached or replaced programs last, as 16 hexadecimal digits; read from the kernel."""
        return build_text(self._datapath.maps.read_meta().head.build)

    @property
    def outdated(self) -> bool:
        """Whether any attached program is of another build than this package's; read from the hooks.

        The programs of transit switch and shortcut count as well.
        """
        datapath = self._datapath
        if datapath.is_older:
            return bool(datapath.outdated())
        from mizarnet._datapath import shortcuts, switches

        instance = datapath.maps.read_meta().head.instance
        return bool(datapath.outdated()) or any(
            each.outdated(datapath.name)
            for each in (*switches.find(datapath.host), *shortcuts.find(datapath.host))
            if each.standing.head.instance == instance
        )

    @whole
    def update(
        self, *, shortcut: Shortcut | Literal["off", "auto"] | Keep = KEEP
    ) -> tuple[Literal["shortcut"], ...]:
        """Change the agent while it works, with no packet lost.

        Args:
            shortcut: Whether plain tunnel packets take the shortcut on the way in, as for :meth:`attach`. Giving what
                stands already puts back a shortcut that another program took off.

        Returns:
            Names of the arguments that changed something that was wanted.

        Raises:
            VerifierError: The kernel's verifier rejected the program; nothing was changed.
            StaleHandleError: Besides as above, another process kept changing the underlay's hook.
        """
        if shortcut is KEEP:
            _ = self._datapath.maps  # of a handle that is closed, or stale, nothing is as it stands
            return ()
        from mizarnet._datapath import shortcuts

        wanted = parse_member(Shortcut, shortcut, argument="shortcut")
        with self._datapath.writing() as maps:
            return ("shortcut",) if shortcuts.change(self._datapath.host, maps, wanted) else ()

    @whole
    def upgrade(self) -> None:
        """Replace the programs that run by this package's, with no packet lost and no entry changed.

        Before that the new programs pass a self-test on maps of its own. The programs of transit switch and shortcut
        are replaced as well. Tables of an older schema are moved to this package's, and counters go on. Handles of the
        older package raise ``LayoutError`` from then on. Within a schema the older package downgrades with the same
        call. Does nothing where nothing is outdated.

        Raises:
            SelfTestError: A program of this package fails its self-test on this kernel; nothing was changed.
            VerifierError: The kernel's verifier rejected a program of this package; nothing was changed.
            LayoutError: The tables are of a newer schema, or cannot be converted; nothing was changed.
            StaleHandleError: Another process changed a hook meanwhile; programs that were replaced are attached again.
            ExistsError: A program had been taken off, and a filter of another program has its place.
        """
        from mizarnet._datapath.migration import migrate  # with the self-test
        from mizarnet._datapath.upgrade import upgrade

        if self._datapath.is_older:
            with device_of(self.tunnel).host.locked():
                migrate(self._datapath.hooks)
                self._go_on(self.tunnel)
            return
        with self._datapath.writing():
            upgrade(self._datapath)

    @whole
    def detach(self: TransitAgent | str, *, force: bool = False, netns: NetnsLike | None = None) -> None:
        """Take the tunnel down and detach agent and guard, with all tables; succeeds if they are gone already.

        ``TransitAgent.detach("tunnel0")`` needs nothing but the tunnel's name. It also ends an agent that cannot be
        opened, since attaching or detaching it was ended halfway.

        Args:
            force: Whether to delete the endpoints first.
            netns: Host namespace of a tunnel given by name; None: the calling thread's.

        Raises:
            InUseError: Endpoints exist, and ``force`` is not given.
            TunnelNotFoundError: There is no tunnel of that name.
        """
        arguments.check_bool(force, argument="force")
        if isinstance(self, str):
            with Tunnel.open(self, netns=netns) as tunnel:
                device = device_of(tunnel)
                with device.host.locked():
                    _remove(device, force=force)
            return
        if netns is not None:
            raise InvalidTypeError("netns= goes with the name of a tunnel", argument="netns")
        datapath_of(self)  # refuses anything but an agent
        from mizarnet._datapath import install

        with device_of(self.tunnel).host.locked():
            device = device_of(self.tunnel)  # under the lock: another thread may have reopened the handle
            try:
                install.remove(device, self._datapath, force=force)
            except StaleHandleError:
                return  # this agent is gone; another may have taken its place
            except AgentNotFoundError:
                install.remove_rest(device)

    @whole
    def reopen(self) -> None:
        """Go on with the agent that is attached now, if the one of this handle was detached or replaced.

        All that hangs on the handle goes on with it: the tables, handles of endpoints and of the switch. The agent is
        found by the tunnel's name in the same network namespace, also if the tunnel was deleted and created again.
        ``tunnel``, ``hook`` and ``capacity`` are read again, and ``created`` is False from then on. An endpoint that
        was made again is another one: its old handle raises ``EndpointNotFoundError``. Does nothing if the handle is
        not stale. If programs of another build are attached, there is a warning, as of :meth:`open`.

        Raises:
            TunnelNotFoundError: There is no tunnel of that name; the handle is as it was.
            AgentNotFoundError: No agent is attached to it, or it is unfinished; the handle is as it was.
            LayoutError: Another version of this package attached it; the handle is as it was.
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing; the handle is as it was.
        """
        if self._renew():
            self._datapath.warn_if_outdated()

    def _renew(self) -> bool:
        """Go on if the handle is stale; whether it was."""
        if not self._is_stale():
            return False
        with device_of(self.tunnel).host.locked():
            if self._is_stale():  # no other thread was faster
                self._go_on(successor_of(self.tunnel))
        return True

    def _is_stale(self) -> bool:
        try:
            if self._datapath.is_older:
                return self._datapath.is_replaced
            _ = self._datapath.maps
        except (StaleHandleError, AgentNotFoundError):
            return True
        return False

    def _go_on(self, tunnel: Tunnel) -> None:
        with ExitStack() as undo:
            found = undo.enter_context(closing(DataPath.open(device_of(tunnel).hooks)))
            hook, capacity = _hook(found), found.capacity
            undo.pop_all()
        self._datapath.become(found)
        self.tunnel = tunnel
        self.hook = hook
        self.capacity = capacity
        self.created = False

    @whole
    def close(self) -> None:
        """Close the handle; closing it again is harmless."""
        self._datapath.close()
        self.tunnel.close()

    def __repr__(self) -> str:
        closed = ", closed" if self._datapath.closed else ""
        return f"<TransitAgent on {self.tunnel.name} by {self.hook.value}{closed}>"

    def _repr_html_(self) -> str:
        caption = f"Transit agent on {place_of(self.tunnel)}"
        try:
            rows = dict(self._fill())
            counters = self.stats()._repr_html_()  # pyright: ignore[reportPrivateUsage]  a protocol of IPython
        except MizarnetError as error:
            rows, counters = {"error": str(error)}, ""
        return table(caption, ("attribute", "value"), {"hook": self.hook, **rows}.items()) + counters

    def _fill(self) -> Iterator[tuple[str, str]]:
        maps = self._datapath.maps
        yield "addresses", f"{maps.endpoints.count():,} of {self.capacity.max_endpoints:,}"
        yield "endpoints of this host", f"{maps.senders.count():,} of {self.capacity.max_local:,}"
        yield "networks", f"{len(self.networks):,}"
        yield "peers", ", ".join(map(str, sorted(self.peers, key=arguments.in_order)))


def _remove(device: TunnelDevice, *, force: bool) -> None:
    """Remove whatever data path is on a tunnel, finished or not; the caller holds the host's lock."""
    from mizarnet._datapath import install

    found = DataPath.find(device.hooks)
    if found is None:
        install.remove_rest(device)
        return
    with closing(found):
        install.remove(device, found, force=force)


def _undo(device: TunnelDevice, error: BaseException) -> None:
    """Remove an agent that was just attached, and that its maker has no handle of; errors become notes of the first."""
    try:
        _remove(device, force=False)
    except MizarnetError as left:
        error.add_note(f"The agent was attached, and could not be detached again: {left}")


def datapath_of(agent: TransitAgent) -> DataPath:
    """The data path of an agent, for the modules above; raises ``InvalidTypeError`` for anything but an agent."""
    if not isinstance(agent, TransitAgent):
        raise InvalidTypeError(f"agent must be a TransitAgent, not {type(agent).__name__}", argument="agent")
    return agent._datapath  # pyright: ignore[reportPrivateUsage]  this function is what others may use


def renew(agent: TransitAgent) -> None:
    """Reopen a handle without a word about programs of another build, for those who do so for nobody in particular."""
    agent._renew()  # pyright: ignore[reportPrivateUsage]  this function is what others may use


def site_of(agent: TransitAgent) -> Site:
    """The agent as a host that packets are walked on; raises ``InvalidTypeError`` for anything but an agent."""
    from mizarnet._datapath.walk import Site

    datapath = datapath_of(agent)
    return Site(device_of(agent.tunnel), datapath, _at(agent.tunnel))


def _at(tunnel: Tunnel) -> str:
    """The host of a tunnel, as people call it."""
    return tunnel.netns or os.uname().nodename


def _hook(datapath: DataPath) -> Hook:
    return deciding_hook(datapath.layers)


def _room(entries: int | None, *, argument: str, most: int) -> int | None:
    return None if entries is None else arguments.check_int(entries, argument=argument, low=1, high=most)


def _prefixes(peers: Iterable[PrefixLike]) -> frozenset[IPNetwork]:
    given = arguments.check_items(peers, argument="peers", what="prefixes")
    return frozenset(arguments.check_prefix(prefix, argument="peers") for prefix in given)


def _verified(programs: Mapping[Place, int]) -> Iterator[tuple[str, int]]:
    for place, program_id in programs.items():
        count = bpf.with_program(program_id, lambda program: program.verified_instructions)
        if count is not None:  # else it was replaced meanwhile
            yield str(place), count


def _shortcut_state(seen: Situation) -> ShortcutState:
    reason = seen.obstacle  # it may stand all the same: what stands against it came later
    if not reason and seen.missing is not None:
        reason = 'another program took it off; agent.update(shortcut="auto") puts it back'
    return ShortcutState(seen.wish, seen.stands, reason)


def _named(ahead: Iterable[tuple[str, int]]) -> Iterator[str]:
    for side, program_id in ahead:
        name = bpf.program_name(program_id) if program_id else "a filter without eBPF"
        if name:  # empty: detached since the survey
            yield f"{side}: {name} ({program_id})"
