"""
A program that visits a cluster again and again, until its input ends: it prints how
many visits there were, how many were refused, and how long the longest took. At the
line C{lost} a machine is lost, and who is served by it then is cut off, not refused.

C{python load.py PORT HOST:HEALTHPORT ...}: visitors come to the hosts that are healthy,
as a balancer leads them.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
import time

EVERY = 0.03
LOOK = 0.2
PATIENCE = 15.0


class Load:
    """
    Visits.

    @param port: The tunnel's.
    @param places: The machines: where each is, and its port for clients.
    """

    def __init__(self, port: int, places: list[tuple[str, int]]) -> None:
        self.port = port
        self.places = places
        self.well: list[str] = []
        self.lock = threading.Lock()
        self.visits = 0
        self.longest = 0.0
        self.refused: list[str] = []
        self.lost = 0.0
        self.cutOff = 0
        self.ending = threading.Event()

    def look(self) -> None:
        while not self.ending.wait(LOOK):
            well = [host for host, port in self.places if self.isWell(host, port)]
            if well != self.well:
                print("healthy", *well, flush=True)
            self.well = well

    def isWell(self, host: str, port: int) -> bool:
        asking = http.client.HTTPConnection(host, port, timeout=1)
        try:
            asking.request("GET", "/health")
            return asking.getresponse().status == 200
        except OSError:
            return False
        finally:
            asking.close()

    def visit(self, host: str) -> None:
        began = time.monotonic()
        try:
            with socket.create_connection((host, self.port), PATIENCE) as talk:
                talk.sendall(b"hello")
                heard = b""
                while len(heard) < 5:
                    piece = talk.recv(5)
                    if not piece:
                        raise OSError("closed")
                    heard += piece
        except OSError as error:
            seconds = time.monotonic() - began
            with self.lock:
                if began < self.lost:
                    self.cutOff += 1
                else:
                    self.refused.append(f"{host}: {error} after {seconds:.2f} s")
        else:
            with self.lock:
                self.visits += 1
                self.longest = max(self.longest, time.monotonic() - began)

    def run(self) -> None:
        threading.Thread(target=self.look, daemon=True).start()
        threading.Thread(target=self.wait, daemon=True).start()
        visitors: list[threading.Thread] = []
        number = 0
        while not self.ending.wait(EVERY):
            well = self.well
            if well:
                number += 1
                host = well[number % len(well)]
                visitor = threading.Thread(target=self.visit, args=(host,))
                visitor.start()
                visitors = [each for each in visitors if each.is_alive()]
                visitors.append(visitor)
        for each in visitors:
            each.join()
        found = {
            "visits": self.visits,
            "refused": self.refused[:5],
            "cut off": self.cutOff,
            "longest": round(self.longest, 3),
        }
        print(f"load {json.dumps(found)}", flush=True)

    def wait(self) -> None:
        """Wait for the end of the input, or a line that is not C{lost}."""
        while sys.stdin.readline() == "lost\n":
            self.lost = time.monotonic()
        self.ending.set()


def main(arguments: list[str]) -> None:
    places = []
    for each in arguments[1:]:
        host, _, port = each.rpartition(":")
        places.append((host, int(port)))
    Load(int(arguments[0]), places).run()


if __name__ == "__main__":
    main(sys.argv[1:])
