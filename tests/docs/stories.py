"""
What the pages take for granted, and what of them a test cannot run.
"""

from __future__ import annotations

from tests.docs.checks import (
    ListPing,
    clientEnds,
    joinServer,
    learnInvitation,
    pingList,
    startDatabase,
    startJoinedSSH,
    startNginx,
    startTor,
    startWeb,
    stay,
    visitorEnds,
)
from tests.docs.pages import ROOT
from tests.docs.running import Story

__all__ = ["LEFT_OUT", "STORIES"]

_TOKEN = (
    "install -m 600 /dev/null token",
    "tristunnel token create --file tokens --name me --may open,access,admin"
    " | sed 's/.* //' > token",
)
_CLIENT = "twistd -n --pidfile= tunnel-client"
_SERVER = "twistd -n --pidfile= tunnel --port tcp:9000"
_TLS = f"{_SERVER} --certificate cert.pem --private-key key.pem"
_TOKENS = "twistd -n --pidfile= tunnel --port ssl:9000 --auth tokens:tokens"
_DATABASE = (
    f"{_CLIENT} --connect tls:localhost:9000 --forward db=localhost:5432 --private"
)


STORIES: dict[str, Story] = {
    "CONTRIBUTING.rst": Story(before=("mkdir newsfragments",)),
    "README.rst": Story(
        beforeEach={
            'curl -s http://localhost:9000/rpc -d \'{"jsonrpc":"2.0","id":1': (
                _SERVER,
            ),
            f"{_CLIENT} --connect tcp:localhost:9000 --forward udp/5353": (_SERVER,),
        }
    ),
    "docs/tutorial.rst": Story(
        own=(3000,),
        after={
            "tristunnel server": learnInvitation,
            "tristunnel token revoke": clientEnds,
        },
        # The port is not the usual one here.
        replace={"localhost#": "localhost:9000#", "localhost as": "localhost:9000 as"},
    ),
    "docs/access.rst": Story(
        before=(_TLS,),
        prepare={"tristunnel access list": stay},
        replace={
            "'w3ps://server:9000/access/ID#SECRET'": (
                "$(python -m tristunnel.rpc https://localhost:9000 --ca authority.pem"
                " grantAccess service=ssh)"
            ),
            "-n tunnel-access --listen": "-n tunnel-access --ca authority.pem --listen",
        },
    ),
    "docs/configuration.rst": Story(setUp=startWeb),
    "docs/policy.rst": Story(
        before=(_SERVER,),
        replace={
            "w3p://localhost:9000/1f8a": (
                "$(python -m tristunnel.rpc http://localhost:9000 openTunnel via=w3p)"
            ),
            # The default is said, so that there is a service.
            "--check --connect": "--check --forward 0=localhost:8080 --connect",
        },
        unvisited=("--allow 192.0.2.0/24",),
    ),
    "docs/screen.rst": Story(
        before=(
            *_TOKEN,
            _SERVER,
            f"{_CLIENT} --connect tcp:localhost:9000 --forward 0=localhost:8080",
        ),
        replace={"https://tunnel.example": "http://localhost:9000"},
    ),
    "docs/udp.rst": Story(before=(_TLS,)),
    "docs/tokens.rst": Story(
        replace={"/var/lib/tunnel/tokens": "tokens"},
        before=("touch tokens",),
        beforeEach={"python -m tristunnel.rpc https://server": (_TLS, _DATABASE)},
    ),
    "docs/nodes.rst": Story(
        before=(
            _TLS,
            f"{_CLIENT} --connect tls:localhost:9000 --forward postgres=localhost:5433",
        ),
        # The other server has the port of the documentation, and this one another.
        replace={
            "tunnel --node": "tunnel --port tcp:9001 --node",
            "tls:b.example.net:9000,": "tls:localhost:9000,ca=authority.pem,",
            "http://localhost:9000": "http://localhost:9001",
        },
    ),
    "docs/reference.rst": Story(before=(_SERVER,)),
    "docs/websocket.rst": Story(
        beforeEach={
            # Ours stands in for vtunnel's; port 8080 is a tunnel's already.
            f"{_CLIENT} --dialect vtunnel": (_SERVER.replace("9000", "7000"),),
            f"{_CLIENT} --dialect relay": (_SERVER,),
        },
        replace={"ws://server:8080": "ws://server:7000"},
        unvisited=("8085=tls://host:443", "--dialect relay"),
    ),
    "docs/zlayer.rst": Story(
        before=(*_TOKEN,),
        beforeEach={f"{_CLIENT} --dialect zlayer": (f"{_TLS} --auth tokens:tokens",)},
        replace={"wss://server/": "wss://server:9000/"},
    ),
    "docs/install.rst": Story(
        replace={
            "/etc/systemd/system/": "etc/",
            "/etc/tristunnel": "etc/tristunnel",
            "/var/lib/tristunnel": "state",
            "-o tristunnel -g tristunnel ": "",
            "runuser -u tristunnel -- /opt/tristunnel/bin/": "",
            " contrib/": f" {ROOT}/contrib/",
        }
    ),
    "docs/managed.rst": Story(
        before=(*_TOKEN, _TLS.replace("tcp:9000", "tcp:9000 --auth tokens:tokens")),
        replace={"tls:t.example.com:9000": "tls:localhost:9000 --ca authority.pem"},
    ),
    "docs/invitations.rst": Story(before=("touch tokens", _TOKENS)),
    "docs/troubleshooting.rst": Story(before=(*_TOKEN, _TOKENS)),
    "docs/howto/ssh.rst": Story(setUp=startJoinedSSH, own=(22,), needs=("ssh", "sshd")),
    "docs/howto/minecraft.rst": Story(
        setUp=joinServer,
        kinds={10001: ListPing},
        replace={
            "minecraft=localhost:25565": "minecraft=localhost:10001",
            "tunnel.example#": "localhost:9000#",
        },
        unvisited=("localhost:25565", "25566"),
        after={
            "tristunnel tcp 25565": pingList,
            "tristunnel invite": learnInvitation,
            "tristunnel client --service": pingList,
        },
    ),
    "docs/howto/web.rst": Story(
        before=_TOKEN,
        prepare={"curl -s https://app.example/": startNginx},
        replace={
            "https://app.example/": "https://app.example:443/",
            "curl -s": "curl -s --fail --cacert authority.pem",
        },
        needs=("nginx", "curl"),
    ),
    "docs/howto/names.rst": Story(
        before=_TOKEN,
        # The public DNS knows no such name.
        unvisited=("http/blog",),
        replace={
            "tls:t.example.com": "tls:localhost",
            "you@example.com": (
                "you@example.com --acme-directory https://localhost:1/directory"
            ),
        },
    ),
    "docs/howto/visitors.rst": Story(
        before=(*_TOKEN, f"{_TOKENS} --http tcp:80 --domain t.example.com"),
        # The public DNS knows no such name.
        unvisited=("http/blog",),
        replace={"tls:t.example.com": "tls:localhost"},
    ),
    "docs/howto/knock.rst": Story(
        before=(*_TOKEN, _TOKENS),
        # Nobody has knocked.
        unvisited=("25565",),
        replace={"tls:t.example.com": "tls:localhost"},
    ),
    "docs/certificates.rst": Story(
        before=_TOKEN,
        # Nobody is asked, who would have to find this machine in the public DNS.
        replace={
            "you@example.com": (
                "you@example.com --acme-directory https://localhost:1/directory"
            )
        },
    ),
    "docs/howto/database.rst": Story(
        before=(*_TOKEN, _TOKENS),
        setUp=startDatabase,
        own=(5432,),
        # psql is the visitor.
        unvisited=("tunnel-access", "5432"),
        needs=("psql", "initdb"),
        after={"tristunnel token revoke guest": visitorEnds},
    ),
    # No visitor is sent to a service before its first check.
    "docs/howto/several.rst": Story(before=(*_TOKEN, _TOKENS), unvisited=("--health",)),
    "docs/howto/start.rst": Story(before=(_SERVER,)),
    # Port 4040 may be somebody else's.
    "docs/howto/inspect.rst": Story(
        before=(_SERVER,), replace={" --inspect": " --inspect=localhost:0"}
    ),
    "docs/howto/webhooks.rst": Story(before=(_SERVER,), needs=("curl", "openssl")),
    "docs/howto/paas.rst": Story(
        before=("export SECRET='correct horse battery staple'",),
        replace={
            "tunnel --auth": (
                "tunnel --certificate cert.pem --private-key key.pem --auth"
            ),
            "wss://app.example/": "wss://app.example:9000/",
        },
    ),
    "docs/howto/tor.rst": Story(
        before=(*_TOKEN, _SERVER),
        beforeEach={f"{_CLIENT} --connect 'tls:": (_TOKENS,)},
        setUp=startTor,
        needs=("txtorcon",),
    ),
    "docs/moving/tristero.rst": Story(needs=("nc",)),
    "docs/moving/w3p.rst": Story(),
    "docs/moving/vtunnel.rst": Story(
        before=_TOKEN,
        beforeEach={
            f"{_CLIENT} --dialect vtunnel": (f"{_TLS} --auth tokens:tokens",),
            f"{_CLIENT} --connect": (f"{_TLS} --auth tokens:tokens",),
        },
        replace={"wss://tunnel.example/": "wss://tunnel.example:9000/"},
    ),
    "docs/moving/zlayer.rst": Story(
        before=_TOKEN,
        beforeEach={f"{_CLIENT} --dialect zlayer": (f"{_TLS} --auth tokens:tokens",)},
        replace={"wss://tunnel.example/": "wss://tunnel.example:9000/"},
    ),
    "docs/moving/tcp-ws-tunnel.rst": Story(
        replace={"wss://app.example/": "ws://app.example:9000/"},
        unvisited=("--dialect relay",),
    ),
    "docs/moving/ssh.rst": Story(before=_TOKEN),
}
"""By page; a page that is not here takes nothing for granted."""

_BY_CI = ".ci/run does it"
_SYSTEM = "it changes the system, and needs root and systemd"

LEFT_OUT: dict[str, dict[str, str]] = {
    "README.rst": {"python3 -m venv": _BY_CI},
    "CONTRIBUTING.rst": {
        "python3 -m venv": _BY_CI,
        ".venv/bin/": ".ci/run does it; tox takes minutes",
        "TRISTUNNEL_GOLDEN": "it writes what other tests compare with",
        "TRISTUNNEL_FRESH": "it is the whole suite",
    },
    "docs/tutorial.rst": {"python3 -m venv": _BY_CI, ".venv/bin/pip": _BY_CI},
    "docs/howto/start.rst": {
        "tristunnel tcp 25565": "there is no Docker, and no such container",
        "tristunnel http 3000": "there is no such unit of systemd",
        "tristunnel tcp nas:22": "there is no machine that sleeps",
        "tristunnel tcp 192.168.2.9:22": "there is no machine that sleeps",
        "tristunnel client": "there are no such programs",
    },
    "docs/install.rst": {
        "python3 -m venv": _BY_CI,
        "/opt/tristunnel/bin/pip": _BY_CI,
        "sphinx-build": _BY_CI,
        "systemd-analyze": "it needs systemd's programs",
        "useradd": _SYSTEM,
        "systemctl": _SYSTEM,
        "docker": "it needs Docker, and an image from a registry",
        "man": "there is no terminal",
    },
    "docs/performance.rst": {"python -m benchmarks": "it takes minutes"},
    "docs/howto/web.rst": {"certbot": "it needs a name in the public DNS"},
    "docs/howto/tor.rst": {
        "pip install": "the tests' own requirements do it",
        "apt-get": "it changes the system",
        "twistd -n --pidfile= tunnel --port onion:": "it needs the network of Tor",
    },
}
"""By page, and by how a command begins: why a test cannot run it. Our own
programs' commands are checked by their own parsers all the same."""
