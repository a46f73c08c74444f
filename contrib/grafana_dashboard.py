"""
Write C{grafana-dashboard.json}.

Usage: python contrib/grafana_dashboard.py > contrib/grafana-dashboard.json
"""

from __future__ import annotations

import json

WHERE = 'instance=~"$instance"'

RATE = "[$__rate_interval]"


def rates(name: str, by: str, also: str = "") -> str:
    """
    How fast a counter grows, by a label.
    """
    return f"sum by ({by}) (rate(tristunnel_{name}{{{also}{WHERE}}}{RATE}))"


def quantiles(name: str, *which: float) -> list[tuple[str, str]]:
    """
    Quantiles of a histogram.
    """
    return [
        (f"histogram_quantile({q}, {rates(f'{name}_bucket', 'le')})", f"{q:.0%}")
        for q in which
    ]


def now(name: str) -> str:
    """
    What a gauge says.
    """
    return f"{name}{{{WHERE}}}"


# Title, unit, and what is drawn: expression and legend.
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    (
        "Visitors",
        "short",
        [(f"sum by (tunnel) ({now('tristunnel_visitors')})", "{{tunnel}}")],
    ),
    (
        "New visitors",
        "reqps",
        [(rates("visitors_served_total", "tunnel"), "{{tunnel}}")],
    ),
    (
        "Bytes from visitors",
        "Bps",
        [(rates("bytes_total", "tunnel", 'direction="in",'), "{{tunnel}}")],
    ),
    (
        "Bytes to visitors",
        "Bps",
        [(rates("bytes_total", "tunnel", 'direction="out",'), "{{tunnel}}")],
    ),
    (
        "Clients and tunnels",
        "short",
        [
            (f"sum({now('tristunnel_clients')})", "clients"),
            (f"sum({now('tristunnel_tunnels')})", "tunnels"),
            (f"sum({now('tristunnel_tunnels_client_away')})", "without a client"),
        ],
    ),
    (
        "Refused",
        "reqps",
        [
            (rates("visitors_refused_total", "code"), "visitors: {{code}}"),
            (rates("logins_refused_total", "code"), "logins: {{code}}"),
            (rates("connections_refused_total", "code"), "connections: {{code}}"),
        ],
    ),
    (
        "Streams that broke",
        "reqps",
        [(rates("streams_broken_total", "code"), "{{code}}")],
    ),
    ("How long visitors stay", "s", quantiles("visitor_seconds", 0.5, 0.9, 0.99)),
    (
        "Round trip to clients",
        "s",
        quantiles("session_round_trip_seconds", 0.5, 0.9, 0.99),
    ),
    (
        "Waiting",
        "bytes",
        [
            (now("tristunnel_session_queued_bytes"), "to be sent: {{what}}"),
            (now("tristunnel_held_bytes"), "for readers that stand still"),
        ],
    ),
    (
        "Out of credit",
        "short",
        [
            (now("tristunnel_streams_out_of_credit"), "streams"),
            (now("tristunnel_sessions_out_of_credit"), "sessions"),
        ],
    ),
    (
        "Waits for credit",
        "reqps",
        [(rates("window_stalls_total", "of"), "{{of}}")],
    ),
    ("Streams by carrier", "short", [(now("tristunnel_streams"), "{{carrier}}")]),
    (
        "Bytes spliced and copied",
        "Bps",
        [(rates("relayed_bytes_total", "by"), "{{by}}")],
    ),
    ("Reactor lag", "s", quantiles("reactor_lag_seconds", 0.5, 0.99)),
    ("Reactor timers", "short", [(now("tristunnel_reactor_timers"), "timers")]),
    (
        "Descriptors",
        "short",
        [(now("process_open_fds"), "open"), (now("process_max_fds"), "most")],
    ),
    ("Memory", "bytes", [(now("process_resident_memory_bytes"), "resident")]),
]


def panel(number: int) -> dict[str, object]:
    """
    One graph; three stand side by side.
    """
    title, unit, series = PANELS[number]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": 8, "w": 8, "x": number % 3 * 8, "y": number // 3 * 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(series)
        ],
    }


BOARD = {
    "title": "tristunnel",
    "uid": "tristunnel",
    "tags": ["tristunnel"],
    "schemaVersion": 39,
    "refresh": "30s",
    "time": {"from": "now-3h", "to": "now"},
    "templating": {
        "list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            {
                "name": "instance",
                "type": "query",
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "query": "label_values(tristunnel_build_info, instance)",
                "includeAll": True,
                "multi": True,
                "refresh": 2,
            },
        ]
    },
    "panels": [panel(number) for number in range(len(PANELS))],
}

if __name__ == "__main__":
    print(json.dumps(BOARD, indent=1))
