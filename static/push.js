// Web push in the service worker of any site, by one line of it: importScripts('https://hub.example/static/push.js')
//
// It shows what the hub sends, replaces what has the same tag, opens the address of what is clicked, reports `shown`,
// `clicked` and `closed` to the address in the message, and renews a subscription that the browser has changed, also
// when no page is open. Messages that are not the hub's are left to the site's own listeners. What push-client.js stored
// at registration (the hub's address, its key, the renewal) is in the cache storage that page and worker share.

(() => {
  'use strict';

  const STORE = 'clarion-push';
  const ENTRY = 'clarion-push-registration'; // relative: the entry of this worker's scope

  self.addEventListener('push', (event) => {
    const message = parsed(event.data);
    if (message) event.waitUntil(show(message));
  });

  self.addEventListener('notificationclick', (event) => {
    const said = event.notification.data?.clarion;
    if (!said) return;
    event.notification.close();
    const chosen = event.action === '' ? said.url : said.actions[Number(event.action)]?.url;
    event.waitUntil(Promise.all([report(said.receipt, 'clicked'), open(chosen, said.id)]));
  });

  self.addEventListener('notificationclose', (event) => {
    const said = event.notification.data?.clarion;
    if (said) event.waitUntil(report(said.receipt, 'closed'));
  });

  self.addEventListener('pushsubscriptionchange', (event) => {
    event.waitUntil(renew(event.oldSubscription, event.newSubscription));
  });

  // ---------------------------------------------------------------- showing

  /** The hub's message; null for all others. */
  function parsed(data) {
    try {
      const message = data?.json();
      return message?.v === 1 && typeof message.notification?.title === 'string' ? message : null;
    } catch {
      return null;
    }
  }

  async function show({ notification, receipt }) {
    const { id, title, body = '', icon, tag = id, actions = [] } = notification;
    const most = self.Notification?.maxActions ?? 2;
    const moment = Date.parse(notification.created_at);
    await self.registration.showNotification(title, {
      body,
      tag,
      icon: address(icon) ?? undefined,
      renotify: Boolean(notification.renotify && tag),
      timestamp: Number.isNaN(moment) ? Date.now() : moment,
      actions: actions.slice(0, most).map((action, index) => ({ action: String(index), title: action.title })),
      data: { ...notification.data, clarion: { id, url: notification.url, actions, receipt } },
    });
    await report(receipt, 'shown');
  }

  /** An http(s) address; a relative one is the site's own. Null for everything else, such as `javascript:`. */
  function address(text) {
    if (typeof text !== 'string' || text === '') return null;
    try {
      const url = new URL(text, self.registration.scope);
      return url.protocol === 'https:' || url.protocol === 'http:' ? url.href : null;
    } catch {
      return null;
    }
  }

  /** Bring the address to the front: the window that shows it already, else a new one. */
  async function open(text, id) {
    const wanted = address(text);
    const windows = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
    for (const window of windows) window.postMessage({ type: 'clarion:clicked', id, url: wanted });
    const there = wanted === null ? windows[0] : windows.find((window) => window.url === wanted);
    try {
      await (there ? there.focus() : self.clients.openWindow(wanted ?? self.registration.scope));
    } catch (error) {
      console.warn('The browser did not open the window of a notification:', error.message);
    }
  }

  /** Tell the hub what became of a message. It is a courtesy: when it does not arrive, nothing is tried again. */
  async function report(receipt, event) {
    const target = address(receipt);
    if (target === null) return;
    const body = JSON.stringify({ event }); // as plain text, which browsers send anywhere without asking first
    await fetch(target, { method: 'POST', body, credentials: 'omit', keepalive: true }).catch(() => {});
  }

  // ---------------------------------------------------------------- renewing

  async function renew(before, after) {
    const kept = await registered();
    const key = before?.options?.applicationServerKey ?? (kept && bytes(kept.key));
    const { pushManager } = self.registration;
    let next = after ?? await pushManager.getSubscription();
    if (!next && key) next = await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key }).catch(() => null);
    if (!next) return; // the user has withdrawn the permission: nothing is to be renewed
    const subscription = next.toJSON();
    if (kept && await told(kept, subscription)) return;
    const windows = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
    for (const window of windows) window.postMessage({ type: 'clarion:push-subscription-changed', subscription });
  }

  async function told(kept, subscription) {
    const body = JSON.stringify({ renewal: kept.renewal, subscription });
    try {
      const answer = await fetch(`${kept.hub}/v1/push/renewals`, { method: 'POST', body, credentials: 'omit' });
      if (!answer.ok) return false;
      const { renewal } = await answer.json();
      const store = await caches.open(STORE);
      await store.put(entry(), new Response(JSON.stringify({ ...kept, renewal })));
      return true;
    } catch {
      return false;
    }
  }

  async function registered() {
    const found = await (await caches.open(STORE)).match(entry()).catch(() => null);
    return found ? found.json().catch(() => null) : null;
  }

  const entry = () => new URL(ENTRY, self.registration.scope).href;

  function bytes(base64url) {
    const text = atob(base64url.replaceAll('-', '+').replaceAll('_', '/'));
    return Uint8Array.from(text, (character) => character.charCodeAt(0));
  }
})();
