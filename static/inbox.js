// A user's inbox that keeps itself up to date: a list by id, counts, marks. Whatever came twice is there once.

import { foreign, linkTo, make, putFirst, time } from './dom.js';

const PAGE = 30;
const COUNT_DELAY_MS = 150;

export class Inbox {
  #client;
  #parts;
  #items = new Map(); // id -> {notification, element}
  #next = null; // the cursor of older ones
  #isLoading = false;
  #counting = 0;
  #loads = 0;
  #meanwhile = []; // what came live while a page was asked for: the page may have it or not

  /** `parts`: list, box, empty, older, unread, readAll, said. Shows what the client's user has. */
  constructor(client, parts) {
    this.#client = client;
    this.#parts = parts;
    parts.readAll.onclick = () => this.#mark({ mark: 'read', all: true });
    parts.older.onclick = () => this.#older();
    this.#clear();
  }

  /** A live message of the personal channel or of `broadcasts`. */
  receive(message) {
    if (this.#isLoading) this.#meanwhile.push(message);
    if (message.kind === 'notification') this.#arrived(message.notification);
    else if (message.kind === 'mark') this.#marked(message);
    else if (message.kind === 'retracted') this.#retracted(message);
  }

  /** Read the newest page and merge it by id: after connecting, and after every gap. */
  async load() {
    const load = ++this.#loads;
    this.#meanwhile = [];
    this.#isLoading = true;
    try {
      const page = await this.#client.rpc('notifications.list', { limit: PAGE });
      if (load !== this.#loads) return;
      this.#clear();
      for (const notification of page.notifications) this.#append(notification);
      this.#next = page.next;
      this.#showCounts(page);
    } finally {
      if (load === this.#loads) this.#isLoading = false;
    }
    for (const message of this.#meanwhile.splice(0)) this.receive(message);
    this.#showEmpty();
  }

  async #older() {
    const page = await this.#try('notifications.list', { limit: PAGE, cursor: this.#next });
    if (!page) return;
    for (const notification of page.notifications) this.#append(notification);
    this.#next = page.next;
    this.#showEmpty();
  }

  #clear() {
    this.#items.clear();
    this.#parts.list.replaceChildren();
    this.#next = null;
    this.#showEmpty(true);
    this.#showCounts({ unread: 0 });
  }

  #append(notification) {
    if (this.#items.has(notification.id)) return;
    const element = this.#element(notification);
    this.#items.set(notification.id, { notification, element });
    this.#parts.list.append(element);
  }

  // ---------------------------------------------------------------- what comes live

  #arrived(notification) {
    const known = this.#items.get(notification.id);
    if (known) {
      const { seen_at, read_at, archived_at } = known.notification; // broadcasts come without anybody's marks
      this.#replace(known, { ...notification, seen_at: notification.seen_at ?? seen_at, read_at: notification.read_at ?? read_at, archived_at: notification.archived_at ?? archived_at });
    } else {
      const element = this.#element(notification, 'new');
      this.#items.set(notification.id, { notification, element });
      putFirst(this.#parts.box, this.#parts.list, [element]);
      this.#parts.said.textContent = `New notification: ${notification.title.slice(0, 100)}`;
    }
    this.#showEmpty();
    this.#countSoon();
  }

  #marked({ mark, ids, all, category, unread }) {
    const now = new Date().toISOString();
    for (const item of [...this.#items.values()]) {
      const { notification } = item;
      const meant = ids ? ids.includes(notification.id) : all && (!category || notification.category === category);
      if (!meant) continue;
      if (mark === 'archive') this.#remove(notification.id);
      else this.#replace(item, { ...notification, ...marksAfter(mark, notification, now) });
    }
    this.#showCounts({ unread });
    if (mark === 'unarchive') this.load().catch(() => {});
    this.#showEmpty();
  }

  #retracted({ ids }) {
    for (const id of ids) this.#remove(id);
    this.#showEmpty();
    this.#countSoon();
  }

  #remove(id) {
    this.#items.get(id)?.element.remove();
    this.#items.delete(id);
  }

  #replace(item, notification) {
    const hadFocus = item.element.contains(document.activeElement);
    const element = this.#element(notification);
    item.element.replaceWith(element);
    item.element = element;
    item.notification = notification;
    if (hadFocus) element.querySelector('button')?.focus();
  }

  /** The counts after what came: asked for once for all that comes together. */
  #countSoon() {
    clearTimeout(this.#counting);
    this.#counting = setTimeout(async () => {
      try {
        this.#showCounts(await this.#client.rpc('unread_count'));
      } catch {
        // after the next connection the whole page is read again
      }
    }, COUNT_DELAY_MS);
  }

  // ---------------------------------------------------------------- marks

  async #mark(request) {
    const answer = await this.#try('notifications.mark', request);
    // Our own connection hears of it as all others do; the answer only makes it sure.
    if (answer) this.#marked({ ...request, ...answer });
  }

  async #try(method, data) {
    try {
      return await this.#client.rpc(method, data);
    } catch (error) {
      this.#parts.said.textContent = `That did not work: ${error.message}`;
      return null;
    }
  }

  // ---------------------------------------------------------------- drawing

  #showCounts({ unread, capped = false }) {
    const { unread: badge, readAll } = this.#parts;
    badge.hidden = !unread;
    badge.textContent = capped || unread >= 100 ? '100+ unread' : `${unread} unread`;
    readAll.disabled = !unread;
  }

  #showEmpty(isLoading = false) {
    this.#parts.empty.hidden = isLoading || this.#items.size > 0;
    this.#parts.older.hidden = this.#next === null;
  }

  #element(notification, extra = '') {
    const { id, title, body, url, actions, actor, actor_name: actorName, category, type, topic, priority, read_at: readAt } = notification;
    const isUnread = readAt === null;
    const mark = () => this.#mark({ mark: isUnread ? 'read' : 'unread', ids: [id] });
    const links = [url, ...(actions ?? []).map((action) => action.url)].filter(Boolean);
    const facts = [
      time(notification.created_at),
      make('span', {}, foreign(type, 60)),
      category === type ? null : make('span', {}, 'in ', foreign(category, 60)),
      topic ? make('span', {}, 'on ', foreign(topic, 60)) : null,
      actor ? make('span', {}, 'by ', foreign(actorName || actor, 60)) : null,
      priority === 'high' ? make('span', { class: 'high' }, 'high priority') : null,
    ];
    return make(
      'li',
      { class: `item ${isUnread ? 'unread' : ''} ${extra}` },
      make('div', { class: 'item-text' },
        make('p', { class: 'item-title', dir: 'auto' }, isUnread ? make('span', { class: 'unseen' }, 'Unread: ') : null, foreign(title || '(no title)')),
        body ? make('p', { class: 'item-body', dir: 'auto' }, foreign(body, 1000)) : null,
        ...links.slice(0, 5).map((link) => make('p', { class: 'item-link' }, linkTo(link))),
        make('p', { class: 'facts' }, ...facts)),
      make('button', { type: 'button', class: 'plain', onclick: mark }, isUnread ? 'Mark read' : 'Mark unread'),
    );
  }
}

function marksAfter(mark, { seen_at: seenAt, read_at: readAt }, now) {
  if (mark === 'unread') return { read_at: null };
  if (mark === 'read') return { seen_at: seenAt ?? now, read_at: readAt ?? now };
  return mark === 'seen' ? { seen_at: seenAt ?? now } : {};
}
