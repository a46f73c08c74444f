"""
The other relay, written as tcp-ws-tunnel's author describes it: a server with
FastAPI, and the two adapters with C{websockets}. Run as a program:

  - C{adapters.py relay}: the relay server; prints C{port N};
  - C{adapters.py host URL PORT}: the server's adapter;
  - C{adapters.py client URL}: the client's adapter; prints C{port N}.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any


async def pipe(one: Any, other: Any) -> None:
    while True:
        await other.send_bytes(await one.receive_bytes())


def makeRelay() -> Any:
    from fastapi import FastAPI, WebSocket

    app = FastAPI()
    ends: dict[str, Any] = {}
    met = asyncio.Event()

    async def join(role: str, websocket: WebSocket) -> None:
        await websocket.accept()
        ends[role] = websocket
        if len(ends) == 2:
            met.set()
        await met.wait()
        other = ends["client" if role == "host" else "host"]
        # Whatever ends one side ends both.
        with contextlib.suppress(Exception):
            await pipe(websocket, other)
        for each in list(ends.values()):
            with contextlib.suppress(RuntimeError):
                await each.close()
        ends.clear()
        met.clear()

    async def host(websocket: WebSocket) -> None:
        await join("host", websocket)

    async def client(websocket: WebSocket) -> None:
        await join("client", websocket)

    for function in (host, client):
        # Annotations are text here, which FastAPI cannot look up.
        function.__annotations__["websocket"] = WebSocket
        app.add_api_websocket_route(f"/{function.__name__}", function)
    return app


async def serveRelay() -> None:
    import uvicorn

    config = uvicorn.Config(makeRelay(), port=0, log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print("port", server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


async def toWebSocket(reader: asyncio.StreamReader, websocket: Any) -> None:
    """Pass bytes from TCP to the relay, without a look at what they are: a socket whose
    other side has closed reads as empty, again and again."""
    while True:
        await websocket.send(await reader.read(4096))


async def toTCP(websocket: Any, writer: asyncio.StreamWriter) -> None:
    try:
        async for message in websocket:
            writer.write(message)
            await writer.drain()
    finally:
        writer.close()


async def adapt(
    url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    import websockets

    try:
        async with websockets.connect(url) as websocket:
            # Until it is full nothing else of this program runs, once there are
            # empty messages to send.
            kernel = websocket.transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            await asyncio.gather(
                toWebSocket(reader, websocket), toTCP(websocket, writer)
            )
    except (websockets.ConnectionClosed, OSError):
        pass


async def hostAdapter(url: str, port: int) -> None:
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await adapt(url, reader, writer)


async def clientAdapter(url: str) -> None:
    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await adapt(url, reader, writer)

    server = await asyncio.start_server(come, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "relay":
        asyncio.run(serveRelay())
    elif role == "host":
        asyncio.run(hostAdapter(arguments[0], int(arguments[1])))
    else:
        asyncio.run(clientAdapter(arguments[0]))
