"""A real browser, without a window: Chromium, told what to do through a pipe."""

from __future__ import annotations

import json
import os
import shutil
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

__all__ = ["Browser", "chromium"]

_INTO, _OUT = 3, 4

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    # What pictures show: a name, and TLS with a certificate of our own.
    "--host-resolver-rules=MAP tunnel.example.com 127.0.0.1,"
    "MAP *.t.example.com 127.0.0.1",
    "--ignore-certificate-errors",
)


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser(ProcessProtocol):
    """A browser with one page; what it complained of, and what it requested."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self._rest = b""
        self._number = 0
        self._calls: dict[int, Deferred[Any]] = {}
        self._events: dict[str, list[Deferred[Any]]] = {}
        self._session: str | None = None
        self._ended: Deferred[None] = Deferred()
        self._over = False

    @classmethod
    async def start(cls, reactor: IReactorProcess, directory: Path) -> Browser:
        self = cls()
        path = chromium()
        assert path is not None
        reactor.spawnProcess(
            self,
            path,
            [path, *_FLAGS, f"--user-data-dir={directory}", "about:blank"],
            env={**os.environ, "HOME": str(directory)},
            childFDs={0: "w", 1: "r", 2: "r", _INTO: "w", _OUT: "r"},
        )
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        return self

    # The pipe

    def call(self, method: str, /, **params: Any) -> Deferred[Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        answer: Deferred[Any] = Deferred()
        self._calls[self._number] = answer
        assert self.transport is not None
        self.transport.writeToChild(_INTO, json.dumps(message).encode() + b"\0")
        return answer

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == _OUT:
            *whole, self._rest = (self._rest + data).split(b"\0")
            for each in whole:
                self._received(json.loads(each))

    def _received(self, message: dict[str, Any]) -> None:
        answer = self._calls.pop(message.get("id", 0), None)
        if answer is not None:
            if "error" in message:
                answer.errback(RuntimeError(message["error"]["message"]))
            else:
                answer.callback(message["result"])
            return
        name, params = message.get("method", ""), message.get("params", {})
        if name in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(params))
        elif name == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(params["args"]))
        elif name == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        for waiting in self._events.pop(name, []):
            waiting.callback(params)

    def processEnded(self, reason: Failure) -> None:
        self._over = True
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            answer.errback(reason)
        self._ended.callback(None)

    def stop(self) -> Deferred[None]:
        with suppress(ProcessExitedAlready):
            if not self._over and self.transport is not None:
                self.transport.signalProcess("KILL")
        return self._ended

    # The page

    async def during(self, event: str, act: Callable[[], Deferred[Any]]) -> None:
        happened: Deferred[Any] = Deferred()
        self._events.setdefault(event, []).append(happened)
        await act()
        await happened

    async def open(self, url: str) -> None:
        await self.during(
            "Page.loadEventFired", lambda: self.call("Page.navigate", url=url)
        )

    async def evaluate(self, script: str) -> Any:
        done = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"]))
        return done["result"].get("value")

    def until(self, condition: str) -> Deferred[Any]:
        """Wait until C{condition}, in JavaScript, is true."""
        return Deferred.fromCoroutine(
            self.evaluate(
                f"""new Promise(done => {{
                  const look = () => {{ if ({condition}) done(true); }};
                  new MutationObserver(look).observe(document.documentElement,
                    {{subtree: true, childList: true, attributes: true,
                      characterData: true}});
                  look();
                }})"""
            )
        )

    async def follow(self, selector: str) -> None:
        await self.during(
            "Page.loadEventFired",
            lambda: Deferred.fromCoroutine(
                self.evaluate(
                    f"void document.querySelector({json.dumps(selector)}).click()"
                )
            ),
        )

    async def press(self, key: str) -> None:
        codes = {"Tab": 9, "Enter": 13}
        for kind in ("rawKeyDown", "char", "keyUp"):
            # Only the character makes a form be sent.
            if kind != "char" or key == "Enter":
                await self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=key,
                    code=key,
                    text="\r" if key == "Enter" else "",
                    windowsVirtualKeyCode=codes[key],
                )

    async def enter(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def picture(
        self, path: Path, width: int = 1200, dark: bool = False, most: int = 2400
    ) -> None:
        scheme = "dark" if dark else "light"
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        await self.call("Emulation.setTouchEmulationEnabled", enabled=width < 600)
        for height in (400, None):
            height = height or min(
                most, await self.evaluate("document.documentElement.scrollHeight")
            )
            await self.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=width < 600,
            )
        taken = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(b64decode(taken["data"]))
