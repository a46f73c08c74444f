"""
Who may visit a name, in a browser: PIN, login, links, and accounts at a real provider.

With C{TRISTUNNEL_LONG=1} only. C{TRISTUNNEL_DEX} names dex, built from its source;
C{TRISTUNNEL_OIDC_PROVIDER} the directory where C{npm install oidc-provider} was run;
C{TRISTUNNEL_PICTURES} a directory for screenshots.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import bcrypt
from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support.browser import Browser, chromium
from tests.support.processes import Program, freePort, startProgram, startTristunnel
from tests.support.short import shortDirectory

_WEB = """
import sys
from flask import Flask, request
application = Flask(__name__)
@application.get("/", defaults={"path": ""})
@application.get("/<path:path>")
def told(path):
    return {"path": path, **dict(request.headers)}
application.run("127.0.0.1", int(sys.argv[1]), threaded=True)
"""

_DEX = """
issuer: {issuer}
storage: {{type: memory}}
web: {{http: "127.0.0.1:{port}"}}
oauth2: {{skipApprovalScreen: true}}
staticClients:
- id: blog
  name: A blog
  secret: a secret of the blog
  redirectURIs: ["{back}"]
enablePasswordDB: true
staticPasswords:
- {{email: anna@example.org, username: anna, userID: "1", hash: "{hash}",
   groups: [{groups}]}}
"""

_PROVIDER = """
issuer = "{issuer}"
client-id = "blog"
client-secret = "a secret of the blog"
scopes = ["openid", "email", "profile", "groups"]
groups = ["staff"]
"""

_NODE = """
import Provider from 'oidc-provider';
import {{createServer}} from 'node:http';
const groups = {{anna: ['staff']}};
const provider = new Provider('http://127.0.0.1:{port}', {{
  clients: [{{client_id: 'blog', client_secret: 'a secret of the blog',
             redirect_uris: ['{back}']}}],
  claims: {{openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups']}},
  scopes: ['openid', 'email', 'groups'],
  conformIdTokenClaims: false,
  async findAccount(ctx, id) {{
    return {{accountId: id, async claims() {{ return {{
      sub: id, groups: groups[id] || [],
      email: id + '@example.org', email_verified: true}}; }}}};
  }},
}});
const callback = provider.callback();
createServer((asked, answer) => {{
  if (asked.url !== '/take-away') return callback(asked, answer);
  groups.anna = [];
  answer.end('taken');
}}).listen({port}, '127.0.0.1', () => console.log('ready'));
"""

_ATTACKS = """(async () => {
  const found = {}, blog = BLOG;
  const tries = async (name, what) => {
    try { found[name] = String(await what()); }
    catch (error) { found[name] = "refused: " + error.name; }
  };
  await tries("read", async () =>
    (await fetch(blog + "/", {credentials: "include"})).text());
  await tries("ownCookies", async () => document.cookie);
  await tries("fix", async () => {
    for (const name of ["tristunnel-visitor-e3b0c442",
                        "__Host-tristunnel-visitor-e3b0c442"])
      document.cookie = name + "=x; domain=t.example.com; path=/; secure";
    return document.cookie;
  });
  await tries("post", async () => (await fetch(blog + "/.tristunnel/sign-in", {
    method: "POST", credentials: "include", mode: "no-cors",
    headers: {"Content-Type": "application/x-www-form-urlencoded"},
    body: "pin=258025"})).type);
  return JSON.stringify(found);
})()"""


class VisitorTests(TestCase):
    """A browser before names that ask."""

    timeout = 600

    if importlib.util.find_spec("flask") is None:
        skip = "the package flask is not installed"
    if not os.environ.get("TRISTUNNEL_LONG") or chromium() is None:
        skip = "set TRISTUNNEL_LONG=1 to have a browser sign in; it takes Chromium"

    async def _begin(self, *asked: str, server: tuple[str, ...] = ()) -> None:
        """
        @param asked: What each name asks: C{blog,pin=...}.
        @param server: More options of the server.
        """
        self.reactor: Any = _reactor
        self.directory = shortDirectory(self)
        self.port, self.https, web = freePort(), freePort(), freePort()
        path = self.directory / "web.py"
        path.write_text(_WEB)
        self.web = web
        flask = self._program("web", sys.executable, str(path), str(web))
        here = "interface=127.0.0.1"
        ours = startTristunnel(
            self.reactor,
            "tunnel",
            [
                *("--port", f"tcp:{self.port}:{here}"),
                *("--https", f"tcp:{self.https}:{here}", "--domain", "t.example.com"),
                *("--state-dir", str(self.directory / "state")),
                *("--access-log", str(self.directory / "log"), *server),
            ],
            self.directory,
        )
        self.addCleanup(ours.kill)
        await ours.says("ANYBODY MAY CONNECT")
        await flask.says("Running on")
        await self._client(*asked)
        self.browser = await Browser.start(self.reactor, self.directory / "browser")
        self.addCleanup(self.browser.stop)
        self.blog = f"https://blog.t.example.com:{self.https}"

    async def _client(self, *asked: str) -> Program:
        words = [f"http/{each}" for each in asked]
        words = [each.replace(",", f"=127.0.0.1:{self.web},", 1) for each in words]
        client = startTristunnel(
            self.reactor,
            "tunnel-client",
            [
                *("--connect", f"tcp:127.0.0.1:{self.port}"),
                *("--state-dir", str(self.directory / "client")),
                *(word for each in words for word in ("--forward", each)),
            ],
            self.directory,
        )
        self.addCleanup(client.kill)
        await client.says(rf"^https://blog.t.example.com:{self.https}$")
        self.client = client
        return client

    def _program(self, name: str, *command: str) -> Program:
        path = shutil.which(command[0])
        assert path is not None, command
        made = startProgram(self.reactor, name, [path, *command[1:]], self.directory)
        self.addCleanup(made.kill)
        return made

    def file(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    async def text(self) -> str:
        return str(await self.browser.evaluate("document.body.innerText"))

    async def told(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(await self.text())
        return found

    async def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            box = f"document.querySelector({json.dumps(f'[name={name}]')})"
            await self.browser.evaluate(f"{box}.value = {json.dumps(value)}")
        first = json.dumps(f"[name={next(iter(fields))}]")
        await self.browser.follow(f"form:has({json.loads(first)}) button")

    async def picture(self, name: str, width: int = 800) -> None:
        if place := os.environ.get("TRISTUNNEL_PICTURES"):
            await self.browser.picture(Path(place) / f"{name}.png", width)
            await self.browser.picture(Path(place) / f"{name}-dark.png", 390, True)

    async def test_pinAndLogin(self) -> None:
        """
        Right, wrong, signed out, over, another PIN; and a neighbour's page that tries
        to read, fix and misuse all that.
        """
        directory = shortDirectory(self)
        pin, users = directory / "pin", directory / "users"
        for each, text in ((pin, "258025"), (users, "anna:a secret")):
            each.write_text(text)
            each.chmod(0o600)
        asked = f"blog,pin={pin},login={users},stay=60"
        await self._begin(asked, "evil,raw")
        browser, blog = self.browser, self.blog
        await browser.open(f"{blog}/a?b=1")
        await self.picture("visitors-asked")
        await self.fill(pin="000000")
        self.assertIn("That is not the PIN.", await self.text())
        await self.picture("visitors-wrong")
        await browser.open(f"{blog}/a?b=1")
        await self.fill(pin="258025")
        self.assertEqual(await browser.evaluate("location.href"), f"{blog}/a?b=1")
        told = await self.told()
        self.assertEqual(told["path"], "a")
        self.assertNotIn("Cookie", told)
        self.assertEqual(await browser.evaluate("document.cookie"), "")
        await self._attacked()
        # What the neighbour has set counts for nothing.
        await browser.open(f"{blog}/again")
        self.assertEqual((await self.told())["path"], "again")
        await browser.open(f"{blog}/.tristunnel/sign-out")
        await self.picture("visitors-sign-out")
        await browser.follow("button")
        self.assertIn("You have signed out.", await self.text())
        await browser.open(f"{blog}/x")
        self.assertIn("Name", await self.text())
        await self.fill(user="anna", password="a secret")
        self.assertEqual((await self.told())["X-Forwarded-User"], "anna")
        await deferLater(self.reactor, 61)
        await browser.open(f"{blog}/x")
        self.assertIn("PIN", await self.text())
        await self.fill(pin="258025")
        self.assertEqual((await self.told())["path"], "x")
        pin.write_text("258026")
        await self.client.stop()
        await self._client(asked, "evil,raw")
        await browser.open(f"{blog}/x")
        self.assertIn("PIN", await self.text())
        for _ in range(8):
            if "PIN" in await self.text():
                await self.fill(pin="111111")
        self.assertIn("too many logins", (await self.text()).lower())
        await self.picture("visitors-waits")

    async def _attacked(self) -> None:
        """A neighbour's page tries to read, fix and misuse a visitor's sign-in."""
        browser, blog = self.browser, self.blog
        await browser.open(f"https://evil.t.example.com:{self.https}/")
        found = json.loads(
            await browser.evaluate(_ATTACKS.replace("BLOG", json.dumps(blog)))
        )
        self.assertEqual(found["read"], "refused: TypeError")
        for name in ("ownCookies", "fix"):
            self.assertNotIn("__Host-", found[name])
        await browser.evaluate(
            f"document.body.innerHTML = '<iframe src=\"{blog}/.tristunnel/sign-in\">'"
        )
        framed = await browser.evaluate(
            """new Promise(done => setTimeout(() => {
              try { done(String(document.querySelector("iframe").contentDocument)); }
              catch (error) { done(error.name); } }, 1000))"""
        )
        self.assertEqual(framed, "null")
        form = (
            f'<form method="post" action="{blog}/.tristunnel/sign-in">'
            '<input name="pin" value="258025"><button>x</button></form>'
        )
        await browser.open(f"https://evil.t.example.com:{self.https}/")
        await browser.evaluate(f"document.body.innerHTML = {json.dumps(form)}")
        await browser.follow("button")
        self.assertIn("A page from another site", await self.text())

    async def _dex(self, dex: str, port: int, groups: str) -> Program:
        text = _DEX.format(
            issuer=f"http://127.0.0.1:{port}/dex",
            port=port,
            back=f"{self.blog}/.tristunnel/oidc",
            hash=bcrypt.hashpw(b"a password", bcrypt.gensalt(10)).decode(),
            groups=groups,
        )
        made = self._program("dex", dex, "serve", self.file("dex.yaml", text))
        await made.says("listening on")
        # A provider is asked once in ten seconds at the most.
        await deferLater(self.reactor, 11)
        return made

    async def test_dex(self) -> None:
        """Right, wrong, signed out, and a group that was taken away."""
        dex = os.environ.get("TRISTUNNEL_DEX")
        if not dex:
            self.skipTest("TRISTUNNEL_DEX does not name dex")
        directory, port = shortDirectory(self), freePort()
        issuer = f"http://127.0.0.1:{port}/dex"
        provider = directory / "provider.toml"
        provider.write_text(_PROVIDER.format(issuer=issuer))
        provider.chmod(0o600)
        asked = f"blog,oidc={provider}"
        await self._begin(asked, server=("--oidc-issuer", issuer))
        browser, blog = self.browser, self.blog
        await browser.open(f"{blog}/early")
        self.assertIn("cannot sign you in now; try again later", await self.text())
        serving = await self._dex(dex, port, "staff")
        await browser.open(f"{blog}/a?b=1")
        self.assertIn("/dex/auth", await browser.evaluate("location.href"))
        await self.picture("visitors-dex")
        await self.fill(login="anna@example.org", password="wrong")
        self.assertIn("Invalid", await self.text())
        await self.fill(login="anna@example.org", password="a password")
        self.assertEqual(await browser.evaluate("location.href"), f"{blog}/a?b=1")
        told = await self.told()
        names = (
            "X-Forwarded-User",
            "X-Forwarded-Email",
            "X-Forwarded-Groups",
            "Cookie",
        )
        self.assertEqual(
            [told.get(name) for name in names],
            ["anna@example.org", "anna@example.org", "staff", None],
        )
        await browser.open(f"{blog}/.tristunnel/sign-out")
        await browser.follow("button")
        await serving.stop()
        # With other keys, and without the group.
        await self._dex(dex, port, "guests")
        await browser.open(f"{blog}/b")
        await self.fill(login="anna@example.org", password="a password")
        self.assertIn("anna@example.org may not visit", await self.text())
        await self.picture("visitors-refused")
        await browser.open(f"{blog}/.tristunnel/oidc?code=x&state=y")
        self.assertIn("not started in this browser", await self.text())
        provider.write_text(provider.read_text().replace("staff", "guests"))
        await self.client.stop()
        await self._client(asked)
        await browser.open(f"{blog}/c")
        await self.fill(login="anna@example.org", password="a password")
        self.assertEqual((await self.told())["X-Forwarded-Groups"], "guests")
        log = (self.directory / "log").read_text()
        self.assertNotIn("code=", log)
        self.assertIn("/.tristunnel/oidc", log)

    async def test_oidcProvider(self) -> None:
        """
        A provider that knows its visitors again; one who was in is out after the time
        to stay, since a group was taken away.
        """
        place = os.environ.get("TRISTUNNEL_OIDC_PROVIDER")
        if not place:
            self.skipTest("TRISTUNNEL_OIDC_PROVIDER does not name oidc-provider")
        directory, port = shortDirectory(self), freePort()
        issuer = f"http://127.0.0.1:{port}"
        provider = directory / "provider.toml"
        said = _PROVIDER.format(issuer=issuer).replace('"profile", ', "")
        provider.write_text(said)
        provider.chmod(0o600)
        await self._begin(
            f"blog,oidc={provider},stay=60", server=("--oidc-issuer", issuer)
        )
        browser, blog = self.browser, self.blog
        script = self.directory / "provider.mjs"
        back = f"{blog}/.tristunnel/oidc"
        script.write_text(_NODE.format(port=port, back=back))
        (self.directory / "node_modules").symlink_to(Path(place) / "node_modules")
        await self._program("provider", "node", str(script)).says("ready")
        await browser.open(f"{blog}/a?b=1")
        await self.fill(login="anna", password="any")
        await browser.follow("button")
        self.assertEqual(await browser.evaluate("location.href"), f"{blog}/a?b=1")
        self.assertEqual((await self.told())["X-Forwarded-Groups"], "staff")
        await browser.open(f"{blog}/.tristunnel/sign-out")
        await browser.follow("button")
        await browser.open(f"{blog}/again")
        # The provider knows who it is.
        self.assertEqual((await self.told())["path"], "again")
        await browser.open(f"{issuer}/take-away")
        await browser.open(f"{blog}/still")
        self.assertEqual((await self.told())["path"], "still")
        await deferLater(self.reactor, 61)
        await browser.open(f"{blog}/later")
        self.assertIn("anna@example.org may not visit", await self.text())

    async def test_link(self) -> None:
        """A link has a button."""
        await self._begin("blog,link")
        call = self._program(
            "call",
            # With the packages of the test's own.
            sys.executable,
            *("-m", "tristunnel.rpc", f"http://127.0.0.1:{self.port}", "grantAccess"),
            *("service=blog", "ttl=600", "uses=1"),
        )
        link = (await call.says(r"^(https://\S+)$"))[1]
        await self.browser.open(link)
        await self.picture("visitors-link")
        await self.browser.follow("button")
        self.assertEqual((await self.told())["path"], "")
        await self.browser.open(link)
        await self.browser.follow("button")
        self.assertIn("not valid, or no longer", await self.text())
