// Somebody's preferences and profile as the API keeps them, and changes to them, one after the other.
//
// A change is a function from the current preferences to a merge patch (RFC 7396). It is sent with If-Match; when
// somebody else changed them meanwhile, the new ones are read and the change is made again on them, once.

import { call } from './api.js';

export class Settings {
  preferences = null;
  profile = null;
  #etag = null;
  #paths;
  #last = Promise.resolve();

  /** `user: null` means whoever the session belongs to; else an operator acts for that user. */
  constructor(user) {
    const id = user === null ? null : encodeURIComponent(user);
    this.#paths = id === null
      ? { preferences: 'v1/me/preferences', profile: 'v1/me' }
      : { preferences: `v1/users/${id}/preferences`, profile: `v1/users/${id}` };
  }

  /** Read both. Throws `Problem`. */
  async load() {
    await Promise.all([this.#read(), this.#readProfile()]);
  }

  async #read() {
    const { data, etag } = await call('GET', this.#paths.preferences);
    this.preferences = data;
    this.#etag = etag;
  }

  async #readProfile() {
    try {
      this.profile = (await call('GET', this.#paths.profile)).data;
    } catch (error) {
      if (error.status !== 404) throw error;
      this.profile = { locale: null, timezone: null }; // nobody stored this user yet
    }
  }

  /** Save a change of the preferences. Throws `Problem`. */
  change(patchOf) {
    return this.#inTurn(async () => {
      try {
        await this.#patch(patchOf);
      } catch (error) {
        if (error.status !== 412) throw error;
        await this.#read();
        await this.#patch(patchOf);
      }
    });
  }

  async #patch(patchOf) {
    const headers = { 'Content-Type': 'application/merge-patch+json', 'If-Match': this.#etag ?? '*' };
    const { data, etag } = await call('PATCH', this.#paths.preferences, { body: patchOf(this.preferences), headers });
    this.preferences = data;
    this.#etag = etag;
  }

  /** Save fields of the profile (null clears). The grid speaks the user's language, so it is read again. Throws `Problem`. */
  changeProfile(fields) {
    return this.#inTurn(async () => {
      const headers = { 'Content-Type': 'application/merge-patch+json' };
      try {
        this.profile = (await call('PATCH', this.#paths.profile, { body: fields, headers })).data;
      } catch (error) {
        if (error.status !== 404) throw error;
        this.profile = (await call('PUT', this.#paths.profile, { body: { ...fields } })).data;
      }
      await this.#read();
    });
  }

  #inTurn(work) {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {});
    return done;
  }
}

/** The merge patch that switches one channel of a category. */
export function switchCell(category, channel, isOn) {
  return (preferences) => {
    const own = preferences.categories?.[category];
    if (own !== false) return { categories: { [category]: { [channel]: isOn } } };
    // The category was off as a whole: what it said of the other channels has to be said one by one.
    const row = preferences.grid.find((one) => one.category === category);
    const channels = Object.fromEntries(Object.keys(row?.channels ?? {}).map((name) => [name, false]));
    return { categories: { [category]: { ...channels, [channel]: isOn } } };
  };
}

/** The merge patch that adds an id to, or takes it from, the muted ones of a kind. */
export function mute(kind, id, isMuted) {
  return (preferences) => ({ muted: { [kind]: changed(preferences.muted?.[kind], id, isMuted) } });
}

/** The merge patch that adds an id to, or takes it from, the only ones of a category; the last one ends the rule. */
export function only(category, kind, id, isChosen) {
  return (preferences) => {
    const rule = preferences.only?.categories?.[category] ?? {};
    const ids = changed(rule[kind], id, isChosen);
    const otherKind = kind === 'actors' ? 'topics' : 'actors';
    const isEmpty = ids.length === 0 && !rule[otherKind];
    return { only: { categories: { [category]: isEmpty ? null : { [kind]: ids.length ? ids : null } } } };
  };
}

function changed(ids, id, isIn) {
  const others = (ids ?? []).filter((one) => one !== id);
  return isIn ? [...others, id] : others;
}
