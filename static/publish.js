// The "try it" form: an event from its fields, sent through the API like any backend's.

import { Problem, call } from './api.js';
import { byId, isId, make } from './dom.js';

/** `onUser(id)`: the form is about this user from now on. `onSent(id)`: this event was accepted. */
export class TryIt {
  #form = byId('try');
  #outcome = byId('sent');
  #key = newKey(); // of one intention: a repeat after a lost answer makes no second event
  #onUser;
  #onSent;

  constructor({ onUser, onSent }) {
    this.#onUser = onUser;
    this.#onSent = onSent;
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#form.addEventListener('input', () => {
      this.#key = newKey();
      this.#showAudience();
    });
    this.#fields.user.addEventListener('change', () => this.#onUser(this.user));
    this.#showAudience();
  }

  get #fields() {
    return this.#form.elements;
  }

  get user() {
    return this.#fields.user.value.trim();
  }

  /** Write another user into the form. */
  setUser(user) {
    this.#fields.user.value = user;
    this.#showAudience();
  }

  /** Offer the types and some users that the hub knows. */
  async offer() {
    const [types, users] = await Promise.all([call('GET', 'v1/types?limit=1000'), call('GET', 'v1/users?limit=100')]);
    const chosen = this.#fields.type.value;
    const options = types.data.types.map(({ name }) => make('option', { value: name, selected: name === chosen }, name));
    this.#fields.type.replaceChildren(...options);
    byId('users').replaceChildren(...users.data.users.map(({ id, name }) => make('option', { value: id }, name ?? '')));
  }

  #showAudience() {
    const audience = this.#fields.audience.value;
    byId('topic-field').hidden = audience !== 'topic';
    byId('follow-field').hidden = audience !== 'topic';
    byId('follow-user').textContent = this.user || 'the user';
    byId('user-hint').textContent = audience === 'user'
      ? 'Any id will do; no registration needed. The inbox below is this user’s.'
      : 'The inbox below is this user’s.';
  }

  async #send() {
    const send = this.#fields.send;
    send.disabled = true;
    this.#say('Sending …');
    try {
      this.#onUser(this.user);
      const event = this.#event();
      if (event.to.topic && this.#fields.follow.checked && this.user) {
        await call('PUT', `v1/topics/${encodeURIComponent(event.to.topic)}/users/${encodeURIComponent(this.user)}`);
      }
      const { data } = await call('POST', 'v1/events', { body: event, headers: { 'Idempotency-Key': this.#key } });
      this.#key = newKey();
      this.#accepted(data.id);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#say(error.message, 'wrong');
    } finally {
      send.disabled = false;
    }
  }

  #event() {
    const value = (name) => this.#fields[name].value.trim();
    const audience = this.#fields.audience.value;
    const to = { user: value('user'), topic: { topic: value('topic') }, everyone: { everyone: true } }[audience];
    if (audience === 'user') this.#check('user', 'Say to whom: give the id of a user.');
    if (audience === 'topic') this.#check('topic', 'Say to whom: give the name of a topic.');
    const event = { type: value('type'), to, priority: value('priority') };
    for (const name of ['title', 'body', 'url', 'actor']) if (value(name)) event[name] = value(name);
    if (value('data')) event.data = this.#data(value('data'));
    return event;
  }

  #check(name, ask) {
    const field = this.#fields[name];
    const text = field.value.trim();
    field.toggleAttribute('aria-invalid', false);
    if (isId(text)) return;
    field.setAttribute('aria-invalid', 'true');
    field.focus();
    throw new Problem(text ? 'That is not an id: 1 to 128 of A-Z a-z 0-9 . _ : @ + | ~ = -' : ask);
  }

  #data(text) {
    try {
      const data = JSON.parse(text);
      if (data && typeof data === 'object' && !Array.isArray(data)) return data;
    } catch {
      // told below
    }
    this.#fields.data.closest('details').open = true;
    this.#fields.data.focus();
    throw new Problem('The data is not a JSON object, such as {"number": 1}.');
  }

  #accepted(id) {
    const retract = make('button', { type: 'button', class: 'plain', onclick: () => this.#retract(id) }, 'Take it back');
    const show = make('button', { type: 'button', class: 'plain', onclick: () => this.#onSent(id) }, 'Show in the log');
    this.#outcome.className = 'outcome good';
    this.#outcome.replaceChildren('Accepted. ', show, ' ', retract);
    this.#outcome.title = id;
  }

  async #retract(id) {
    try {
      await call('DELETE', `v1/events/${encodeURIComponent(id)}`);
      this.#say('Taken back.');
    } catch (error) {
      this.#say(error.message, 'wrong');
    }
  }

  #say(text, kind = '') {
    this.#outcome.className = `outcome ${kind}`;
    this.#outcome.title = '';
    this.#outcome.textContent = text;
  }
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(12)); // randomUUID exists on secure pages only
  return `page-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
