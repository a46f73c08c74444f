// Runs W3P's own server: node w3p_server.mjs CHECKOUT SETTINGS
// SETTINGS is JSON: {"port": 0, "id": "only-this-client",
//   "key": FILE, "cert": FILE, "tunnelKey": FILE, "tunnelCert": FILE}, all optional.
// Orders on stdin: "drop" cuts every client's connection.
import { readFileSync } from "node:fs";
import { importPeer, obey, say } from "./w3p_events.mjs";

const [checkout, settingsJson = "{}"] = process.argv.slice(2);
const settings = JSON.parse(settingsJson);
const { TunnelServer } = await importPeer(checkout);

const pem = (key, cert) =>
  key ? { key: readFileSync(key), cert: readFileSync(cert) } : false;

const server = new TunnelServer({
  connectionFilter: (credentials) =>
    settings.id === undefined || credentials.id === settings.id,
  tls: {
    mainServer: pem(settings.key, settings.cert),
    tunnelServer: pem(settings.tunnelKey, settings.tunnelCert),
  },
});

// W3P reports the port it was asked for, so port 0 must be looked up.
server.events.on("main-server-start", ({ secure }) =>
  say("main-server-start", { port: server.server.address().port, secure }),
);
server.events.on(
  "tunnel-created",
  ({ clientTunnel, clientAuthenticationCredentials, secure }) =>
    say("tunnel-created", {
      port: clientTunnel.tunnelAddress.port,
      credentials: clientAuthenticationCredentials,
      secure,
    }),
);
for (const name of [
  "error",
  "main-server-error",
  "client-authentication-failed",
  "client-error",
  "tunnel-error",
  "visitor-error",
]) {
  server.events.on(name, ({ err }) => say(name, { message: String(err) }));
}
for (const name of [
  "client-connected",
  "client-protocol-confirmed",
  "client-disconnected",
  "visitor-connected",
  "visitor-disconnected",
]) {
  server.events.on(name, () => say(name));
}

obey({
  drop: () => {
    for (const { socket } of server.tunnels) socket.destroy();
  },
});
server.start(settings.port ?? 0);
