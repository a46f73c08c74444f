// What both drivers share: the peer's entry by path, JSON lines, orders on stdin.
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

/** Import W3P's own entry from its checkout. */
export function importPeer(checkout) {
  return import(pathToFileURL(path.join(checkout, "src", "entry.ts")).href);
}

/** Print one event as a line of JSON. */
export function say(event, facts = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...facts })}\n`);
}

/** Run `orders[line]` for each line of stdin; the end of stdin ends the program. */
export function obey(orders) {
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => orders[line.trim()]?.());
  lines.on("close", () => process.exit(0));
}
