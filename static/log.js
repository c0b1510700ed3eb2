// The live log: the newest lines at the top, filtered, paused, counted; never more than 500 rows in the page.

import { Problem, call } from './api.js';
import { foreign, make, putFirst, time } from './dom.js';

const ROWS = 500; // in the page
const KEPT = 5_000; // in memory, for the filter
const FIRST = 200; // read from the store at the start
const RATE_SECONDS = 5;

const CHANNELS = { in_app: 'in-app', email: 'e-mail', sms: 'SMS', web_push: 'web push', mobile_push: 'mobile push' };

export class LiveLog {
  #parts;
  #lines = []; // oldest first
  #known = new Set(); // keys of the lines, to join what was read with what came live
  #fresh = []; // came since the last frame
  #paused = false;
  #missedWhilePaused = 0;
  #words = [];
  #moments = []; // [second, lines, set of events]
  #isDrawing = false;
  #onUser;

  /** `parts`: body, box, empty, filter, pause, eventsRate, linesRate. `onUser(id)`: somebody clicked a user. */
  constructor(parts, onUser) {
    this.#parts = parts;
    this.#onUser = onUser;
    parts.filter.addEventListener('input', () => this.#filter());
    parts.pause.addEventListener('click', () => this.#pause(!this.#paused));
    setInterval(() => this.#showRates(), 1000);
  }

  /** Read the newest stored lines and join them with what came live meanwhile. Throws `Problem`. */
  async load() {
    const { data } = await call('GET', `v1/log?limit=${FIRST}`);
    this.#take(data.entries.map(asLine));
    this.#lines.sort(inOrder);
    this.#trim();
    this.#fresh = [];
    this.#drawAll();
  }

  /** Say why there is nothing to see. */
  fail(error) {
    this.#parts.empty.textContent = error instanceof Problem ? error.message : 'The log cannot be read.';
    this.#parts.empty.hidden = this.#parts.body.childElementCount > 0;
  }

  /** A live message of the channel `log`. */
  receive({ entries = [], dropped = 0 }) {
    const lines = entries.map(asLine).sort(inOrder);
    if (dropped) lines.push(asLine({ at: lines.at(-1)?.at ?? new Date().toISOString(), state: 'more', reason: `${dropped} more lines of this batch are in the stored log` }));
    const taken = this.#take(lines);
    this.#count(taken, dropped);
    if (this.#paused) {
      this.#missedWhilePaused += taken.filter((line) => this.#matches(line)).length;
      this.#showPause();
    } else {
      this.#fresh.push(...taken);
      this.#drawSoon();
    }
  }

  /** Show only lines that have this text. */
  find(text) {
    this.#parts.filter.value = text;
    this.#filter();
  }

  #take(lines) {
    const taken = lines.filter((line) => !this.#known.has(line.key));
    for (const line of taken) this.#known.add(line.key);
    this.#lines.push(...taken);
    this.#trim();
    return taken;
  }

  #trim() {
    if (this.#lines.length <= KEPT + ROWS) return;
    for (const line of this.#lines.splice(0, this.#lines.length - KEPT)) this.#known.delete(line.key);
  }

  // ---------------------------------------------------------------- drawing

  #drawSoon() {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    // A hidden page gets no frames; what waits for one is bounded below.
    requestAnimationFrame(() => {
      this.#isDrawing = false;
      this.#drawFresh();
    });
    if (this.#fresh.length > KEPT) this.#fresh.splice(0, this.#fresh.length - ROWS);
  }

  #drawFresh() {
    const { body, box } = this.#parts;
    const shown = this.#fresh.filter((line) => this.#matches(line)).slice(-ROWS);
    this.#fresh = [];
    if (shown.length) {
      putFirst(box, body, shown.reverse().map((line) => this.#row(line, 'new')));
      while (body.childElementCount > ROWS) body.lastElementChild.remove();
    }
    this.#showEmpty();
  }

  #drawAll() {
    const found = [];
    for (let at = this.#lines.length - 1; at >= 0 && found.length < ROWS; at -= 1) {
      if (this.#matches(this.#lines[at])) found.push(this.#row(this.#lines[at]));
    }
    this.#parts.body.replaceChildren(...found);
    this.#showEmpty();
  }

  #showEmpty() {
    const { body, empty } = this.#parts;
    empty.hidden = body.childElementCount > 0;
    if (empty.hidden) return;
    empty.textContent = this.#words.length
      ? 'No line has these words. Clear the filter to see all lines.'
      : 'No lines yet. Send something, and what becomes of it shows here.';
  }

  #row(line, extra = '') {
    const reason = [line.reason, line.detail].filter(Boolean).join(' · ');
    const user = line.user
      ? make('button', { type: 'button', class: 'plain', title: `Show the inbox of ${line.user}`, onclick: () => this.#onUser(line.user) }, foreign(line.user, 60))
      : make('span', { class: 'quiet' }, line.notification ? 'many' : '—');
    const cell = (name, ...children) => make('td', { class: name, role: 'cell' }, ...children);
    return make(
      'tr',
      { role: 'row', class: `state-${/^[a-z_]+$/.test(line.state) ? line.state : 'other'} ${extra}`, title: line.event ?? null },
      cell('at', time(line.at)),
      cell('state', make('span', { class: 'state-name' }, foreign(line.state, 20))),
      cell('user', user),
      cell('type', foreign(line.type ?? '', 60)),
      cell('channel', foreign(CHANNELS[line.channel] ?? line.channel ?? '', 20)),
      make('td', { class: 'reason', role: 'cell', title: reason.slice(0, 500) || null }, foreign(reason, 200)),
    );
  }

  // ---------------------------------------------------------------- filter, pause, rates

  #matches(line) {
    return this.#words.every((word) => line.text.includes(word));
  }

  #filter() {
    this.#words = this.#parts.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.#fresh = [];
    this.#drawAll();
    this.#parts.box.scrollTop = 0;
  }

  #pause(paused) {
    this.#paused = paused;
    if (!paused) {
      this.#missedWhilePaused = 0;
      this.#fresh = [];
      this.#drawAll();
    }
    this.#showPause();
  }

  #showPause() {
    const { pause } = this.#parts;
    pause.setAttribute('aria-pressed', String(this.#paused));
    const count = this.#missedWhilePaused;
    pause.textContent = this.#paused ? (count ? `Go on (${count} new)` : 'Go on') : 'Pause';
  }

  #count(lines, dropped) {
    const second = Math.floor(Date.now() / 1000);
    if (this.#moments.at(-1)?.second !== second) this.#moments.push({ second, lines: 0, events: new Set() });
    const moment = this.#moments.at(-1);
    moment.lines += lines.length + dropped;
    for (const line of lines) if (line.event) moment.events.add(line.event);
  }

  #showRates() {
    const since = Math.floor(Date.now() / 1000) - RATE_SECONDS;
    this.#moments = this.#moments.filter((moment) => moment.second >= since);
    const events = new Set(this.#moments.flatMap((moment) => [...moment.events])).size;
    const lines = this.#moments.reduce((sum, moment) => sum + moment.lines, 0);
    this.#parts.eventsRate.textContent = perSecond(events);
    this.#parts.linesRate.textContent = perSecond(lines);
  }
}

function perSecond(count) {
  const rate = count / RATE_SECONDS;
  return rate === 0 || rate >= 10 ? String(Math.round(rate)) : rate.toFixed(1);
}

/** By moment; of one millisecond, an event is accepted before anything comes of it. */
function inOrder(one, other) {
  if (one.at !== other.at) return one.at < other.at ? -1 : 1;
  return (other.state === 'accepted') - (one.state === 'accepted');
}

function asLine(entry) {
  const line = { ...entry, at: entry.at ?? '', state: entry.state ?? '' };
  const { at, state, event, user, notification, channel, type, category, provider, reason, detail } = line;
  const facts = [state, event, user, notification, channel, CHANNELS[channel], type, category, provider, reason, detail];
  line.key = JSON.stringify([at, ...facts]);
  line.text = facts.filter(Boolean).join(' ').toLowerCase();
  return line;
}
