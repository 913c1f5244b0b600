# SPDX-License-Identifier: Apache-2.0
"""A real VM: QEMU boots on an endpoint's descriptor and talks with containers on its host and on the other."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

import mizarnet as mz
from examples.support.guest import Guest
from tests.support.icmp import echo
from tests.support.namespace import SOCKET_SECONDS
from tests.support.vm import Guests
from tests.world import Container

pytestmark = pytest.mark.skipif(
    Path("/run/vm").exists(), reason="an emulated machine in an emulated machine would take minutes"
)

SIZE = 1 << 20
PORT = 5000


@pytest.fixture(scope="module")
def vm(guests: Guests) -> Iterator[mz.Endpoint]:
    with guests.vm() as made:
        yield made


@pytest.fixture(scope="module")
def guest(vm: mz.Endpoint) -> Iterator[Guest]:
    with vm.open_tap() as tap, Guest(vm, tap.fds) as booted:
        yield booted
    assert not vm.state().up


def open_socket(container: Container) -> socket.socket:
    made = container.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(3 * SOCKET_SECONDS)
    return made


def test_s2_a_vm_is_configured_with_the_address_of_its_endpoint(vm: mz.Endpoint, guest: Guest) -> None:
    shown = guest.run("ip address show dev eth0")
    assert [str(address) in shown for address in vm.addresses] == [True, True]
    assert str(vm.mac) in shown
    assert " mtu 1450 " in shown


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_s2_ping_both_ways(vm: mz.Endpoint, guest: Guest, container: Container, family: int) -> None:
    theirs, ours = (str(each.addresses[family].ip) for each in (container.endpoint, vm))
    assert ", 0% packet loss" in guest.run(f"ping -c 2 -s 1400 {theirs}")
    assert echo(container.namespace, ours, size=1400, whole=True)


def test_s2_what_a_vm_reads_from_a_container(vm: mz.Endpoint, guest: Guest, container: Container) -> None:
    """The VM connects; the bytes go to the VM, in frames that are longer than its MTU."""
    data = random.Random(1).randbytes(SIZE)
    with open_socket(container) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind((container.ip, PORT))
        listener.listen(1)
        before = vm.stats().received
        reading = pool.submit(guest.run, f"nc {container.ip} {PORT} | sha256sum")
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(3 * SOCKET_SECONDS)
            connection.sendall(data)
        digest = reading.result(3 * SOCKET_SECONDS).split()[0]
    frames = vm.stats().received - before
    assert digest == sha256(data).hexdigest()
    assert frames.bytes / frames.packets > 1450 + 14


def test_s2_what_a_container_reads_from_a_vm(vm: mz.Endpoint, guest: Guest, container: Container) -> None:
    """The container connects; the bytes come from the VM, in frames that are longer than its MTU."""
    wanted = guest.run(f"head -c {SIZE} /dev/urandom | tee /www/page | sha256sum").split()[0]
    before = vm.stats().sent
    with open_socket(container) as client:
        client.connect((str(vm.ip), 80))
        client.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    frames = vm.stats().sent - before
    head, _, page = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.")
    assert (len(page), sha256(page).hexdigest()) == (SIZE, wanted)
    assert frames.bytes / frames.packets > 1450 + 14


def test_s2_a_vm_that_takes_another_address_is_not_heard(
    vm: mz.Endpoint, guest: Guest, container: Container
) -> None:
    before = vm.stats().dropped
    guest.run("ip address add 10.0.0.99/32 dev eth0")
    output = guest.run(f"ping -c 1 -W 1 -I 10.0.0.99 {container.ip} || true")
    guest.run("ip address del 10.0.0.99/32 dev eth0")
    assert "100% packet loss" in output
    assert (vm.stats().dropped - before).packets >= 1
