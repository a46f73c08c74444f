// Runs W3P's own client: node w3p_client.mjs CHECKOUT SETTINGS
// SETTINGS is JSON: {"host": "localhost", "port": N, "service": N,
//   "credentials": {...}, "ca": FILE}; the last two are optional.
// Orders on stdin: "drop" cuts the connection to the server.
import { readFileSync } from "node:fs";
import { importPeer, obey, say } from "./w3p_events.mjs";

const [checkout, settingsJson] = process.argv.slice(2);
const settings = JSON.parse(settingsJson);
const { TunnelClient } = await importPeer(checkout);

const client = new TunnelClient({
  tunnelServerHost: settings.host ?? "localhost",
  tunnelServerPort: settings.port,
  localServicePort: settings.service,
  authenticationCredentials: settings.credentials ?? {},
  tls: settings.ca ? { ca: readFileSync(settings.ca) } : false,
});

client.events.on("authentication-acknowledged", ({ assignedPort }) =>
  say("authentication-acknowledged", { port: assignedPort }),
);
client.events.on("tunnel-disconnected", ({ hadError }) =>
  say("tunnel-disconnected", { hadError }),
);
client.events.on("tunnel-reconnect-queued", ({ timeout }) =>
  say("tunnel-reconnect-queued", { timeout }),
);
for (const name of ["error", "service-error", "tunnel-error"]) {
  client.events.on(name, ({ err }) => say(name, { message: String(err) }));
}
for (const name of [
  "tunnel-connection-established",
  "tunnel-protocol-confirmed",
  "service-connected",
  "service-disconnected",
]) {
  client.events.on(name, () => say(name));
}

obey({ drop: () => client.tunnelSocketContext?.socket.destroy() });
client.start();
