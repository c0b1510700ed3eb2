// A small client of the Centrifuge protocol (JSON over WebSocket): one connection, recovery, calls.
//
// It comes back by itself with growing pauses and with its positions, so that nothing is missed; where that cannot be
// promised it says `gap`, and what is shown must be read again. It gives up only when the server says so.

const MIN_DELAY_MS = 500;
const MAX_DELAY_MS = 20_000;
const REPLY_MS = 5_000;
const SILENCE_MS = 10_000; // beyond the server's ping

/**
 * Events (CustomEvent, `detail`): `state` {state, seconds, code, reason}; `publication` {channel, data};
 * `gap` {channel}; `subscribed` {channel, recovered}; `refused` {channel, message}.
 *
 * States: `connecting`, `live`, `waiting` (to dial again in `seconds`), `ended` (the server sent us away), `closed`.
 */
export class LiveClient extends EventTarget {
  #url;
  #token; // () => Promise<string>; absent: the session's cookie tells who we are
  #visible;
  #recover;
  #socket = null;
  #state = 'closed';
  #dials = 0; // tells an old dial's answer from the current one
  #attempt = 0;
  #lastId = 0;
  #waiting = new Map(); // command id -> {name, done, fail, timer}
  #wanted = new Set(); // channels that we subscribe to ourselves
  #positions = new Map(); // channel -> {epoch, offset}
  #timers = { redial: 0, silence: 0, refresh: 0 };
  #ping = { seconds: 0, pong: false };

  /** `visible: false` says that nobody looks at this user's messages here: it never counts as reaching them. */
  constructor(url, { token = null, visible = true, recover = true } = {}) {
    super();
    this.#url = url;
    this.#token = token;
    this.#visible = visible;
    this.#recover = recover;
    globalThis.addEventListener?.('online', () => this.hurry());
    globalThis.document?.addEventListener('visibilitychange', () => document.hidden || this.hurry());
  }

  get state() {
    return this.#state;
  }

  open() {
    if (this.#state === 'closed' || this.#state === 'ended') {
      this.#attempt = 0;
      this.#dial();
    }
  }

  close() {
    this.#drop();
    this.#positions.clear();
    this.#become('closed');
  }

  /** Dial now instead of after the pause. */
  hurry() {
    if (this.#state === 'waiting') this.#dial();
  }

  subscribe(channel) {
    this.#wanted.add(channel);
    if (this.#state === 'live') this.#join(channel);
  }

  /** Call a method of the hub. Rejects with an Error whose `code` is the protocol's. */
  async rpc(method, data = {}) {
    if (this.#state !== 'live') throw failure('There is no connection at the moment.', 0, true);
    return (await this.#ask({ rpc: { method, data } })).rpc?.data;
  }

  // ---------------------------------------------------------------- the connection

  async #dial() {
    this.#drop();
    const dial = ++this.#dials;
    this.#become('connecting');
    let token = null;
    if (this.#token) {
      try {
        token = await this.#token();
      } catch (error) {
        if (dial !== this.#dials) return;
        const isFinal = error.status >= 400 && error.status < 500 && error.status !== 429;
        if (isFinal) this.#end(error.status, error.message);
        else this.#redial();
        return;
      }
    }
    if (dial !== this.#dials) return;
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#watchSilence(REPLY_MS);
    socket.onopen = () => this.#connect(token);
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#lost(event.code, event.reason);
  }

  #connect(token) {
    const connect = { name: 'clarion', subs: this.#serverPositions() };
    if (token) connect.token = token;
    const refused = (error) => {
      if (error.isGone) return;
      if (error.code === 109 || error.temporary) this.#lost(0, '');
      else this.#end(error.code, error.message);
    };
    const asks = [{ command: { connect }, done: (reply) => this.#joined(reply.connect), fail: refused }];
    if (!this.#visible) asks.push({ command: { rpc: { method: 'presence.set', data: { visible: false } } } });
    this.#send(asks);
  }

  #joined(result) {
    this.#ping = { seconds: result.ping ?? 0, pong: result.pong ?? false };
    this.#watchSilence();
    this.#attempt = 0;
    this.#renewAfter(result);
    this.#become('live');
    for (const [channel, subscription] of Object.entries(result.subs ?? {})) this.#begin(channel, subscription);
    for (const channel of this.#wanted) this.#join(channel);
  }

  #serverPositions() {
    const subs = {};
    if (!this.#recover) return subs;
    for (const [channel, position] of this.#positions) {
      if (!this.#wanted.has(channel)) subs[channel] = { recover: true, ...position };
    }
    return subs;
  }

  /** The connection is gone: come back, unless the server said that this is final. */
  #lost(code, reason) {
    this.#drop();
    if ((code >= 3500 && code < 4000) || (code >= 4500 && code < 5000) || code === 1009) {
      this.#end(code, reason);
      return;
    }
    if (code === 3014) this.#positions.clear();
    this.#redial();
  }

  #redial() {
    const spread = Math.min(MAX_DELAY_MS, MIN_DELAY_MS * 2 ** this.#attempt);
    const delay = Math.min(MAX_DELAY_MS, MIN_DELAY_MS + Math.random() * spread);
    this.#attempt += 1;
    this.#timers.redial = setTimeout(() => this.#dial(), delay);
    this.#become('waiting', { seconds: Math.ceil(delay / 1000) });
  }

  #end(code, reason) {
    this.#drop();
    this.#become('ended', { code, reason });
  }

  /** Forget the socket, whatever it does from now on. */
  #drop() {
    this.#dials += 1;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { fail, timer } of waiting) {
      clearTimeout(timer);
      fail?.(Object.assign(failure('The connection was lost.', 0, true), { isGone: true }));
    }
  }

  #become(state, detail = {}) {
    this.#state = state;
    this.#tell('state', { state, ...detail });
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #watchSilence(milliseconds = this.#ping.seconds * 1000 + SILENCE_MS) {
    clearTimeout(this.#timers.silence);
    if (milliseconds > SILENCE_MS || milliseconds === REPLY_MS) {
      this.#timers.silence = setTimeout(() => this.#lost(0, ''), milliseconds);
    }
  }

  // ---------------------------------------------------------------- commands and replies

  #ask(command) {
    return new Promise((done, fail) => this.#send([{ command, done, fail }]));
  }

  /**
   * Send commands in one frame; the server does them in this order. Replies are taken at once, by calls and not by
   * promises: what follows in the same frame must find them done.
   */
  #send(asks) {
    const lines = asks.map(({ command, done, fail }) => {
      const id = ++this.#lastId;
      // Without an answer the connection is not worth much (protocol document §15).
      const timer = setTimeout(() => this.#lost(0, ''), REPLY_MS);
      this.#waiting.set(id, { name: Object.keys(command)[0], done, fail, timer });
      return JSON.stringify({ id, ...command });
    });
    this.#socket.send(lines.join('\n'));
  }

  #receive(text) {
    this.#watchSilence();
    for (const line of text.split('\n')) {
      if (!line) continue;
      const reply = parsed(line);
      if (reply === null) {
        this.#lost(0, '');
        return;
      }
      if (reply.id) this.#settle(reply);
      else if (reply.push) this.#pushed(reply.push);
      else if (this.#ping.pong) this.#socket?.send('{}');
      if (!this.#socket) return;
    }
  }

  #settle(reply) {
    const waiting = this.#waiting.get(reply.id);
    if (!waiting) return;
    this.#waiting.delete(reply.id);
    clearTimeout(waiting.timer);
    const { error } = reply;
    if (!error && !reply[waiting.name]) this.#lost(0, ''); // not an answer to what was asked
    else if (error) waiting.fail?.(failure(error.message, error.code, error.temporary ?? false));
    else waiting.done?.(reply);
  }

  #renewAfter(result) {
    clearTimeout(this.#timers.refresh);
    if (!result.expires || !this.#token) return;
    this.#timers.refresh = setTimeout(() => this.#renew(), Math.max(1, result.ttl - 5) * 1000);
  }

  /** A fresh token before the old one ends. When that fails, the server ends the connection and we come back. */
  async #renew() {
    const dial = this.#dials;
    try {
      const token = await this.#token();
      if (dial === this.#dials) this.#renewAfter((await this.#ask({ refresh: { token } })).refresh);
    } catch {
      // see above
    }
  }

  // ---------------------------------------------------------------- channels

  #join(channel) {
    const dial = this.#dials;
    const position = this.#positions.get(channel);
    const asked = position && this.#recover ? { recover: true, ...position } : {};
    const refused = (error) => {
      if (error.isGone) return;
      if (error.temporary) setTimeout(() => dial === this.#dials && this.#join(channel), MIN_DELAY_MS);
      else this.#tell('refused', { channel, message: error.message });
    };
    const done = (reply) => this.#begin(channel, reply.subscribe);
    this.#send([{ command: { subscribe: { channel, ...asked } }, done, fail: refused }]);
  }

  /** A subscription began, here or at the server's wish: note where we are, and say what was missed. */
  #begin(channel, subscription) {
    this.#positions.set(channel, { epoch: subscription.epoch ?? '', offset: subscription.offset ?? 0 });
    const { recovered = false } = subscription;
    if (subscription.was_recovering && !recovered) this.#tell('gap', { channel });
    for (const publication of subscription.publications ?? []) this.#publish(channel, publication);
    this.#tell('subscribed', { channel, recovered });
  }

  #publish(channel, publication) {
    const position = this.#positions.get(channel);
    if (position && publication.offset) position.offset = publication.offset;
    this.#tell('publication', { channel, data: publication.data });
  }

  #pushed({ channel, pub, subscribe, unsubscribe }) {
    if (pub) this.#publish(channel, pub);
    else if (subscribe) this.#begin(channel, subscribe);
    else if (unsubscribe) {
      if (this.#wanted.has(channel) && unsubscribe.code >= 2500) this.#join(channel);
      else this.#tell('refused', { channel, message: unsubscribe.reason });
    }
  }
}

/** A line as an object; null for everything else. */
function parsed(line) {
  try {
    const reply = JSON.parse(line);
    return typeof reply === 'object' ? reply : null;
  } catch {
    return null;
  }
}

function failure(message, code, temporary) {
  return Object.assign(new Error(message), { code, temporary });
}
