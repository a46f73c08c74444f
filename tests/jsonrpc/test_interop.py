"""Programs of other people, calling our methods."""

from __future__ import annotations

import xmlrpc.client
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest
from twisted.web.xmlrpc import Fault, Proxy

from tests.jsonrpc.loopback import LoopbackTestCase, reactor

try:
    import jsonrpclib
except ImportError:
    jsonrpclib = None


class JSONRPCTests(LoopbackTestCase):
    """The calls of jsonrpclib-pelix."""

    async def inThread(self, function: Any) -> Any:
        if jsonrpclib is None:
            raise SkipTest("jsonrpclib-pelix is not installed")

        def work() -> Any:
            proxy = jsonrpclib.ServerProxy(f"http://127.0.0.1:{self.port}/rpc")
            try:
                return function(proxy)
            finally:
                proxy("close")()

        return await deferToThread(work)

    async def test_calls(self) -> None:
        """Calls by position and by name have their results."""
        self.assertEqual(
            await self.inThread(
                lambda proxy: (
                    proxy.subtract(42, 23),
                    proxy.subtract(subtrahend=23, minuend=42),
                    proxy.echo("ü"),
                    proxy.get_data(),
                )
            ),
            (19, 19, "ü", ["hello", 5]),
        )

    async def test_notification(self) -> None:
        """Notifications arrive."""
        await self.inThread(lambda proxy: proxy._notify.update(1, 2))
        self.assertEqual(self.published.callers, ["anybody"])

    async def test_batch(self) -> None:
        """Batches are answered."""

        def work(proxy: Any) -> list[object]:
            batch = jsonrpclib.MultiCall(proxy)
            batch.subtract(42, 23)
            batch._notify.update()
            batch.sum(1, 2)
            return list(batch())

        self.assertEqual(await self.inThread(work), [19, 3])

    async def test_error(self) -> None:
        """Errors arrive with their numbers."""

        def work(proxy: Any) -> object:
            try:
                proxy.refuse("port-taken", None)
            except jsonrpclib.ProtocolError as error:
                return error.args[0]
            return None

        self.assertEqual((await self.inThread(work))[:2], (-32004, "No, because."))


class XMLRPCTests(LoopbackTestCase):
    """The calls of Python's and of Twisted's XML-RPC clients."""

    async def test_python(self) -> None:
        """C{xmlrpc.client} has results and faults."""

        def work() -> tuple[object, ...]:
            url = f"http://127.0.0.1:{self.port}/RPC2"
            with xmlrpc.client.ServerProxy(url, allow_none=True) as proxy:
                results = (
                    proxy.subtract(42, 23),
                    proxy.subtract({"minuend": 1, "subtrahend": 2}),
                    proxy.update(1),
                )
                try:
                    proxy.refuse("port-taken", None)
                except xmlrpc.client.Fault as fault:
                    return (*results, fault.faultCode, fault.faultString)
            return results

        self.assertEqual(
            await deferToThread(work), (19, -1, None, -32004, "No, because.")
        )

    async def test_twisted(self) -> None:
        """C{twisted.web.xmlrpc.Proxy} has results and faults."""
        proxy: Any = Proxy(
            f"http://127.0.0.1:{self.port}/RPC2".encode("ascii"), reactor=reactor
        )
        self.assertEqual(await proxy.callRemote("subtract", 42, 23), 19)
        fault = await self.assertFailure(proxy.callRemote("foobar"), Fault)
        self.assertEqual(fault.faultCode, -32601)
