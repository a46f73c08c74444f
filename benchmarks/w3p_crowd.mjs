// Many of W3P's own clients in one process: node w3p_crowd.mjs CHECKOUT SETTINGS COUNT
// SETTINGS is what tests/interop/w3p_client.mjs takes.
import { readFileSync } from "node:fs";
import { importPeer, obey, say } from "../tests/interop/w3p_events.mjs";

const [checkout, settingsJson, count] = process.argv.slice(2);
const settings = JSON.parse(settingsJson);
const { TunnelClient } = await importPeer(checkout);

let ready = 0;
for (let i = 0; i < Number(count); i++) {
  const client = new TunnelClient({
    tunnelServerHost: settings.host ?? "localhost",
    tunnelServerPort: settings.port,
    localServicePort: settings.service,
    authenticationCredentials: settings.credentials ?? {},
    tls: settings.ca ? { ca: readFileSync(settings.ca) } : false,
  });
  client.events.on("authentication-acknowledged", () => {
    if (++ready === Number(count)) say("all there");
  });
  client.start();
}
obey({});
