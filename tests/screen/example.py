"""A client at one moment, as its C{status} tells of it."""

from __future__ import annotations

from typing import Any

__all__ = ["NOON", "clientStatus", "serverStatus", "tunnel"]

NOON = 1_900_000_000.0


def tunnel(address: str, target: str, **more: Any) -> dict[str, Any]:
    return {
        "server": "tls:tunnel.example.com:9000",
        "forward": f"0={target}",
        "address": address,
        "target": target,
        "ready": True,
        "reason": "",
        "visitors": 0,
        "visitorsTotal": 0,
        "refused": 0,
        "bytesIn": 0,
        "bytesOut": 0,
        "rateIn": 0,
        "rateOut": 0,
        **more,
    }


def _event(ago: float, kind: str, text: str, level: str = "info") -> dict[str, Any]:
    return {
        "time": NOON - ago,
        "kind": kind,
        "level": level,
        "text": text,
        "count": 14 if kind == "refusal" else 1,
    }


def server(**more: Any) -> dict[str, Any]:
    return {
        "server": "tls:tunnel.example.com:9000",
        "dialect": "framed",
        "state": "online",
        "stateSeconds": 7512.4,
        "reason": "",
        "retryIn": None,
        "roundTrip": 0.0123,
        **more,
    }


def clientStatus(**more: Any) -> dict[str, Any]:
    web = tunnel(
        "tcp://tunnel.example.com:30001",
        "localhost:8080",
        name="shop",
        speaks="http",
        visitors=12,
        visitorsTotal=1204,
        rateIn=34_000,
        rateOut=1_200_000,
    )
    dns = tunnel(
        "udp://tunnel.example.com:5353",
        "udp:localhost:53",
        visitors=1,
        visitorsTotal=88,
        rateIn=420,
        rateOut=980,
    )
    ssh = tunnel("tcp://tunnel.example.com:2222", "localhost:22", refused=14)
    wave = [3, 4, 6, 9, 12, 14, 13, 11, 9, 8, 9, 11, 14, 17, 19, 20, 19, 16, 12, 9]
    visitors = [
        (2, "203.0.113.7:52012 came to localhost:8080"),
        (5, "198.51.100.23:40112 left after 8.1 s, 2.1 kB down, 184.0 kB up"),
        (9, "[2001:db8::17]:61001 came to localhost:8080"),
        (13, "198.51.100.23:40112 came to localhost:8080"),
        (21, "203.0.113.99:51820 left after 2 min 4 s, 1.0 kB down, 9.3 MB up"),
        (30, "192.0.2.61:33810 left after 0.2 s, 312 B down, 4.4 kB up"),
        (31, "192.0.2.61:33810 came to localhost:8080"),
    ]
    refused = (
        "a visitor was turned away: nothing listens at localhost:22; start the"
        " service, or correct its address [service-refused]"
    )
    events = [_event(ago, "visitor", text) for ago, text in visitors]
    events.insert(4, _event(16, "refusal", refused, "warn"))
    events.append(_event(7512, "session", "connected to tls:tunnel.example.com:9000"))
    return {
        "program": "client",
        "version": "0.1.0",
        "pid": 4711,
        "seconds": 7513.0,
        "servers": [server()],
        "tunnels": [web, dns, ssh],
        "visitors": 13,
        "visitorsTotal": 1292,
        "refused": 14,
        "bytesIn": 3_100_000,
        "bytesOut": 4_000_000_000,
        "rateIn": 34_420,
        "rateOut": 1_200_980,
        "rates": [[0, each * 60_000] for each in wave * 3],
        "events": events,
        **more,
    }


def serverStatus() -> dict[str, Any]:
    offered = {
        "kind": "tunnel",
        "owner": "laptop",
        "from": "203.0.113.50:41000",
        "address": "tcp://tunnel.example.com:30001",
        "name": "web",
        "visitors": 12,
        "visitorsTotal": 1204,
        "rateIn": 34_000,
        "rateOut": 1_200_000,
    }
    return {
        "where": "https://tunnel.example.com",
        "program": "server",
        "tunnels": [
            offered,
            {**offered, "address": "", "name": "db", "from": "", "owner": "desk"},
        ],
        "clients": [
            {
                "kind": "client",
                "owner": "laptop",
                "from": "203.0.113.50:41000",
                "dialect": "framed",
                "tunnels": ["a"],
                "seconds": 90.0,
            }
        ],
        "visitors": 24,
        "visitorsTotal": 2408,
        "bytesIn": 5,
        "bytesOut": 7,
        "rateIn": 68_000,
        "rateOut": 2_400_000,
    }
