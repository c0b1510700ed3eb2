// Drives the public JavaScript SDK for the end-to-end tests: orders as JSON lines on stdin, events as JSON lines on
// stdout. Usage: node driver.mjs <websocket url> [first token]; with the word "ask" every token is asked for.

import { Centrifuge } from "centrifuge";
import { createInterface } from "node:readline";
import WebSocket from "ws";

const [url, token, asks] = process.argv.slice(2);
const waiting = [];

function tell(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

function getToken() {
  tell("token_wanted");
  return new Promise((resolve) => waiting.push(resolve));
}

const client = new Centrifuge(url, {
  websocket: WebSocket,
  token: token || undefined,
  getToken: asks ? getToken : undefined,
  minReconnectDelay: 50,
  maxReconnectDelay: 200,
});

client.on("connecting", ({ code, reason }) => tell("connecting", { code, reason }));
client.on("connected", ({ client: id }) => tell("connected", { client: id }));
client.on("disconnected", ({ code, reason }) => tell("disconnected", { code, reason }));
client.on("error", ({ error }) => tell("error", { code: error.code, reason: error.message }));
client.on("subscribed", ({ channel, wasRecovering, recovered }) =>
  tell("subscribed", { channel, was_recovering: wasRecovering, recovered }));
client.on("unsubscribed", ({ channel }) => tell("unsubscribed", { channel }));
client.on("publication", ({ channel, data, offset }) => tell("publication", { channel, data, offset: offset ?? 0 }));

const orders = {
  connect: () => client.connect(),
  disconnect: () => client.disconnect(),
  token: ({ token }) => waiting.shift()(token),
  async rpc({ method, data }) {
    try {
      tell("rpc", { data: (await client.rpc(method, data)).data });
    } catch (error) {
      tell("rpc_failed", { code: error.code });
    }
  },
  subscribe({ channel }) {
    const subscription = client.newSubscription(channel);
    subscription.on("subscribed", () => tell("client_subscribed", { channel }));
    subscription.on("unsubscribed", ({ code }) => tell("client_unsubscribed", { channel, code }));
    subscription.on("publication", ({ data }) => tell("client_publication", { channel, data }));
    subscription.subscribe();
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const order = JSON.parse(line);
    orders[order.do](order);
  })
  .on("close", () => process.exit(0));
