# SPDX-License-Identifier: Apache-2.0
"""The transit agent of a host: two programs on the tunnel, and the tables they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Literal, Self, final

import attrs

from mizarnet import attachment, checks, installation
from mizarnet.attachment import Capacity
from mizarnet.checks import IPNetwork
from mizarnet.errors import AgentNotFoundError, InvalidTypeError, StaleHandleError
from mizarnet.html import table
from mizarnet.netlink import Session, get_link
from mizarnet.presence import is_present, remove
from mizarnet.stats import Stats
from mizarnet.store import Maps, Store, locked
from mizarnet.tables import EndpointTable, NetworkTable, PeerSet
from mizarnet.tunnel import Tunnel, refuse_in_use
from mizarnet.values import EndpointKey, Hook, NetnsLike, PrefixLike, parse_member

MOST_ENDPOINTS = 1 << 24
MOST_LOCAL = 1 << 16


@attrs.frozen
class AgentState:
    """An attached agent as the kernel described it.

    Attributes:
        up: Whether the tunnel is there, and up.
        programs: The kernel's number of each program, by name.
        verified: Instructions the verifier processed for each program, by name.
        memory: Bytes of kernel memory that the maps take.
        ahead: Programs of others that run before ours; anything here is a hole.
    """

    up: bool
    programs: Mapping[str, int]
    verified: Mapping[str, int]
    memory: int
    ahead: tuple[str, ...]


@final
class TransitAgent:
    """A handle of the transit agent of one tunnel. Closing it, or leaving its ``with``, touches nothing in the kernel.

    Made by :meth:`attach` and :meth:`open`. Programs, links and maps are pinned: they stay when the process ends.

    Attributes:
        tunnel: The tunnel, through a handle of the agent's own.
        hook: How the programs are attached.
        capacity: Sizes of the tables.
        endpoints: Where each (VNI, address) lives; a live view.
        networks: Prefixes of each VNI; a live view.
        peers: Underlay prefixes that tunnel packets are accepted from; a live view.
        created: Whether this call attached the programs.
    """

    def __init__(self, tunnel: Tunnel, store: Store, hook: Hook) -> None:
        """Not for users: see :meth:`attach` and :meth:`open`."""
        self.tunnel = tunnel
        self.created = False
        self.store = store
        self.hook = hook
        self.capacity: Capacity = Capacity.of(store.maps)
        self.endpoints: EndpointTable = EndpointTable(store, tunnel.local, release=self._release)
        self.networks: NetworkTable = NetworkTable(store, tunnel.local)
        self.peers: PeerSet = PeerSet(store)

    @classmethod
    def attach(
        cls,
        tunnel: Tunnel,
        *,
        peers: Iterable[PrefixLike] | None = None,
        max_endpoints: int = 65536,
        max_local: int = 4096,
        hook: Hook | Literal["auto", "tcx", "clsact"] = "auto",
    ) -> Self:
        """Attach agent and guard to the tunnel and bring it up; adopt them, as they are, if they are there.

        Where somebody took one of them off its hook, both are put back, and the tables are kept.

        Args:
            tunnel: Of this host; the handle stays the caller's.
            peers: Underlay prefixes that tunnel packets are accepted from; None: the underlay's on-link ones.
            max_endpoints: Room for endpoints, local and remote together.
            max_local: Room for endpoints of this host.
            hook: ``"auto"``: tcx where the kernel has it (6.6), else clsact.

        Raises:
            UnsupportedError: The hook does not exist on this kernel.
            ExistsError: Programs are on the tunnel that no pins account for, or its UDP port is taken.
            PrivilegeError: ``CAP_BPF``, ``CAP_NET_ADMIN``, ``CAP_PERFMON`` or ``CAP_SYS_ADMIN`` is missing.
            VerifierError: The kernel does not accept a program.
            LayoutError: Another version of this package attached the agent that is there.
            LockTimeoutError: Another process is writing all the time.
        """
        if not isinstance(tunnel, Tunnel):
            raise InvalidTypeError(f"tunnel must be a Tunnel, not {type(tunnel).__name__}", argument="tunnel")
        given = None if peers is None else _prefixes(peers)
        capacity = Capacity(
            max_endpoints=checks.check_int(
                max_endpoints, argument="max_endpoints", low=1, high=MOST_ENDPOINTS
            ),
            max_local=checks.check_int(max_local, argument="max_local", low=1, high=MOST_LOCAL),
        )
        wanted = None if hook == "auto" else parse_member(Hook, hook, argument="hook")
        with locked(tunnel.session.cookie) as host:
            directory, chosen = host / tunnel.name, attachment.choose_hook(wanted)
            created = not installation.is_complete(directory, tunnel)
            if created:
                attachment.remove(directory, tunnel.session, _ifindex(tunnel))
                installation.install(tunnel, directory, chosen, capacity, given)
            elif attachment.attached_hook(directory, tunnel.session, tunnel.ifindex) is None:
                attachment.attach_again(tunnel.session, tunnel.ifindex, chosen, directory)
                installation.bring_up(tunnel)
        agent = cls.open(tunnel)
        agent.created = created
        return agent

    @classmethod
    def open(cls, tunnel: Tunnel | str, *, netns: NetnsLike | None = None) -> Self:
        """Adopt the agent that is attached to a tunnel.

        Args:
            tunnel: The tunnel, or its name.
            netns: Host namespace of a tunnel given by name; None: the calling thread's.

        Raises:
            AgentNotFoundError: No agent is attached to it.
            TunnelNotFoundError: There is no such tunnel.
        """
        with ExitStack() as undo:
            if isinstance(tunnel, Tunnel):
                own = undo.enter_context(tunnel.copy())
            else:
                own = undo.enter_context(Tunnel.open(tunnel, netns=netns))
            store = Store(own.session.cookie, own.name)
            undo.callback(store.close)
            complete = installation.is_complete(store.directory, own)
            hook = attachment.attached_hook(store.directory, own.session, own.ifindex) if complete else None
            if hook is None:
                raise AgentNotFoundError(
                    f"the transit agent of {own.name} is not on its hooks", hint="attach it again"
                )
            undo.pop_all()
            return cls(own, store, hook)

    @property
    def session(self) -> Session:
        """The host's namespace."""
        return self.tunnel.session

    def _release(self, maps: Maps, key: EndpointKey) -> bool:
        """Whether no local endpoint has ``key``; one whose device is gone gives it up."""
        holder = self.store.record_at(key.vni, key.ip)
        if holder is None:
            return True
        if is_present(holder, self.session):
            return False
        remove(maps, self.session, holder)
        return True

    def stats(self) -> Stats:
        """What each program decided since the agent was attached, summed over the CPUs."""
        return Stats.from_words(self.store.maps.verdicts.sum_words()[1])

    def state(self) -> AgentState:
        """Read programs, memory and hooks from the kernel.

        Raises:
            StaleHandleError: The agent was detached.
            NotFoundError: Somebody removed the pin of a program, or detaches the agent at this moment.
        """
        maps, link = self.store.maps, get_link(self.session, ifindex=self.tunnel.ifindex)
        programs = attachment.open_programs(self.store.directory)
        try:
            return AgentState(
                up=link is not None and link.up,
                programs={name: program.id for name, program in programs.items()},
                verified={name: program.verified_instructions for name, program in programs.items()},
                memory=sum(getattr(maps, name).memory for name in Maps.names()),
                ahead=attachment.ahead(self.session, self.tunnel.ifindex, programs),
            )
        finally:
            for program in programs.values():
                program.close()

    def detach(self, *, force: bool = False) -> None:
        """Take the tunnel down, then agent and guard off it, with all tables; succeeds if they are gone already.

        Args:
            force: Delete the endpoints first.

        Raises:
            InUseError: Endpoints exist, and ``force`` is not given.
            PrivilegeError: The pins are somebody else's; nothing was changed.
            ExistsError: Something else than a directory of pins has its name; nothing was changed.
            LockTimeoutError: Another process is writing all the time.
        """
        with locked(self.session.cookie) as host:
            try:
                maps = self.store.maps
            except StaleHandleError:
                return  # this agent is gone; another may have taken its place
            attachment.refuse_foreign(host / self.tunnel.name)
            if not force:
                refuse_in_use(self.tunnel)
            for record in self.store.all_records():
                remove(maps, self.session, record)
            attachment.remove(host / self.tunnel.name, self.session, _ifindex(self.tunnel))

    def close(self) -> None:
        """Let go of the handle; again is harmless."""
        self.store.close()
        self.tunnel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = ", closed" if self.store.closed else ""
        return f"<TransitAgent on {self.tunnel.name} by {self.hook.value}{closed}>"

    def _repr_html_(self) -> str:
        if self.store.closed:
            return table(repr(self), (), ())
        return self.stats()._repr_html_()  # pyright: ignore[reportPrivateUsage]  a protocol of IPython


def _prefixes(peers: Iterable[PrefixLike]) -> list[IPNetwork]:
    given = checks.check_items(peers, argument="peers", what="prefixes")
    return [checks.check_prefix(prefix, argument="peers") for prefix in given]


def _ifindex(tunnel: Tunnel) -> int | None:
    link = get_link(tunnel.session, ifindex=tunnel.ifindex)
    return None if link is None else link.ifindex
