# SPDX-License-Identifier: Apache-2.0
"""Events in a capture file, read back by other software."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

import mizarnet as mz
from mizarnet import events as events_module
from tests.netns.events.senders import NOBODY, frame_of, send
from tests.support.depth import FULL
from tests.world import BLUE, Container


class NoPath(os.PathLike[str]):
    def __fspath__(self) -> str:
        return 7  # type: ignore[return-value]


def test_frames_are_read_back_with_what_is_said_of_them(one: Container, tmp_path: Path) -> None:
    path, frames = tmp_path / "drops.pcapng", [frame_of(one, payload=bytes(size)) for size in (1, 2, 3, 500)]
    with one.host.agent.events() as events:
        for frame in frames:
            send(one, frame)
        assert events.write_pcapng(path, count=len(frames)) == len(frames)
        assert events.write_pcapng(tmp_path / "none.pcapng", seconds=0) == 0
    with RawPcapNgReader(str(path)) as reader:
        read = [*reader]
    assert [data for data, _ in read] == [frame[:128] for frame in frames]
    for (_, facts), frame in zip(read, frames, strict=True):
        assert (facts.wirelen, facts.linktype, facts.ifname) == (
            len(frame),
            1,
            f"{events_at(one)} agent".encode(),
        )
        (comment,) = facts.comments
        assert comment.decode().startswith(f"agent: NO_DESTINATION, VNI {BLUE}, endpoint one. ")
    with RawPcapNgReader(str(tmp_path / "none.pcapng")) as empty:
        assert [*empty] == []


@pytest.mark.skipif(not FULL, reason="tshark is a large download, for make test-full")
def test_tshark_reads_them_as_well(one: Container, tmp_path: Path) -> None:
    path, frame = tmp_path / "drops.pcapng", frame_of(one, payload=bytes(500))
    with one.host.agent.events() as events:
        send(one, frame)
        events.write_pcapng(path, count=1)
    fields = ("frame.comment", "frame.interface_name", "frame.len", "frame.cap_len", "ip.dst")
    asked = ["tshark", "-r", path, "-T", "fields", "-E", "separator=|", *(f"-e{each}" for each in fields)]
    done = subprocess.run(asked, check=True, timeout=60, stdout=subprocess.PIPE, text=True)
    comment, *facts = done.stdout.strip().split("|")
    assert comment.startswith(f"agent: NO_DESTINATION, VNI {BLUE}, endpoint one. ")
    assert facts == [f"{events_at(one)} agent", str(len(frame)), "128", NOBODY]


def events_at(one: Container) -> str:
    return one.host.agent.tunnel.netns or ""


def test_a_file_that_cannot_be_written_is_an_error_of_the_tree(one: Container, tmp_path: Path) -> None:
    with one.host.agent.events() as events:
        with pytest.raises(mz.KernelError, match="write"):
            events.write_pcapng(tmp_path / "there is none" / "x", seconds=0)
        with pytest.raises(mz.InvalidValueError, match="count"):
            events.write_pcapng(tmp_path / "x", count=0)
        with pytest.raises(mz.InvalidTypeError, match="path"):
            events.write_pcapng(7, seconds=0)
        with pytest.raises(mz.InvalidTypeError, match="path"):
            events.write_pcapng(NoPath(), seconds=0)
        for no_path in ("a\0b", "\ud800"):
            with pytest.raises(mz.InvalidValueError, match="path"):
                events.write_pcapng(no_path, seconds=0)
    assert [*tmp_path.iterdir()] == []


def test_a_file_is_complete_in_time_though_there_is_always_more(
    one: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def followed(event: mz.Event) -> bytes:
        send(one, frame_of(one))
        return made(event)

    made = events_module._block
    monkeypatch.setattr(events_module, "_block", followed)
    with one.host.agent.events() as events:
        send(one, frame_of(one))
        assert events.write_pcapng(tmp_path / "drops.pcapng", seconds=0, count=9) == 1
