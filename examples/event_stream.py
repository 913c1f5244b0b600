# SPDX-License-Identifier: Apache-2.0
"""A service that streams what is dropped on a host to whoever connects, a line of JSON for each frame."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import mizarnet as mz


async def stream(agent: mz.TransitAgent, said: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
    with closing(client), await mz.aio.call(agent.events) as events:
        asyncio.gather(said.read(1), return_exceptions=True).add_done_callback(lambda _: events.close())
        client.write(b"listening\n")
        async for event in events:
            if event.verdict.kind is not mz.VerdictKind.CHATTER:
                client.write(json.dumps(event.to_dict()).encode() + b"\n")
                await client.drain()


async def serve_one_event(lab: mz.Lab, path: Path) -> None:
    async with await asyncio.start_unix_server(lambda r, w: stream(lab.hosts[0].agent, r, w), path):
        lines, client = await asyncio.open_unix_connection(path)
        with closing(client):
            await lines.readline()
            await mz.aio.call(lab.run, "web", "ping", "-c", "1", "-W", "1", "10.0.0.99", check=False)
            event = json.loads(await lines.readline())
    print(f"ok  {event['endpoint']} asks for {event['destination']}: {event['verdict']}")


if __name__ == "__main__":
    with mz.Lab(hosts=1, name="stream") as lab, TemporaryDirectory() as directory:
        netns, agent = lab.container("web"), lab.hosts[0].agent
        mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=netns)
        asyncio.run(serve_one_event(lab, Path(directory) / "events"))
        print(f"all as expected, {agent.stats().dropped.packets} dropped")
