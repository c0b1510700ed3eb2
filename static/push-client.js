// The page's half of web push, for any site: ask for permission, subscribe, register at the hub.
//
//   const { enablePush } = await import('https://hub.example/static/push-client.js');
//   button.onclick = () => enablePush({ hub: 'https://hub.example', token: () => myToken(), serviceWorker: '/sw.js' });
//
// The site's service worker is one line: importScripts('https://hub.example/static/push.js').

const STORE = 'clarion-push';
const ENTRY = 'clarion-push-registration';
const READY_MS = 10_000;

/** What stands in the way is said by `reason`: unsupported, insecure, denied, dismissed, service_worker, hub. */
export class PushError extends Error {
  constructor(reason, sentence) {
    super(sentence);
    this.reason = reason;
  }
}

/** `unsupported`, `insecure`, `denied`, `off` or `on`, for the service worker of a scope (this page's if unsaid). */
export async function pushState({ scope } = {}) {
  if (!globalThis.isSecureContext) return 'insecure';
  if (!('serviceWorker' in navigator) || !('PushManager' in globalThis) || !('Notification' in globalThis)) return 'unsupported';
  if (Notification.permission === 'denied') return 'denied';
  const registration = await navigator.serviceWorker.getRegistration(scope);
  const subscription = await registration?.pushManager.getSubscription();
  return subscription && Notification.permission === 'granted' ? 'on' : 'off';
}

/**
 * Turn web push on in this browser. Call it from a click: browsers ask for permission only then.
 *
 * `hub`: its public address. `token`: a user's token, or a function that gets one; without it the session of the hub's own
 * pages counts. `serviceWorker`: the address of the site's worker (a text or TrustedScriptURL), `scope` its scope.
 * Resolves to `{id}`; rejects with a `PushError`. Repeating it is harmless, and registers the browser for this user.
 */
export async function enablePush({ hub, token = null, serviceWorker, scope }) {
  const state = await pushState({ scope });
  if (state === 'insecure') throw new PushError('insecure', 'Browsers allow notifications only on pages that came over https.');
  if (state === 'unsupported') throw new PushError('unsupported', 'This browser does not know web push. On an iPhone or iPad, add the page to the home screen first.');
  const permission = await Notification.requestPermission();
  if (permission === 'denied') throw new PushError('denied', 'Notifications of this site are blocked; allow them in the browser’s settings for it.');
  if (permission !== 'granted') throw new PushError('dismissed', 'The browser’s question was not answered.');
  const base = String(hub).replace(/\/+$/, '');
  const registration = await worker(serviceWorker, scope);
  const { public_key: key } = await ask(`${base}/v1/push/public-key`, { method: 'GET' });
  const subscription = await subscribe(registration, key);
  const registered = await ask(`${base}/v1/me/push-subscriptions`, { method: 'POST', body: subscription.toJSON(), token });
  await keep(registration, { hub: base, key, renewal: registered.renewal });
  return { id: registered.id };
}

/** Turn it off: the hub forgets this browser, and the browser its subscription. */
export async function disablePush({ hub, token = null, scope }) {
  const registration = await navigator.serviceWorker?.getRegistration(scope);
  const subscription = await registration?.pushManager?.getSubscription();
  if (!subscription) return;
  const { endpoint } = subscription;
  await (await caches.open(STORE)).delete(entry(registration));
  await subscription.unsubscribe();
  await ask(`${String(hub).replace(/\/+$/, '')}/v1/me/push-subscriptions`, { method: 'DELETE', body: { endpoint }, token });
}

async function worker(address, scope) {
  try {
    const registration = await navigator.serviceWorker.register(address, scope ? { scope } : {});
    await active(registration);
    return registration;
  } catch (error) {
    throw new PushError('service_worker', `The service worker did not start: ${error.message}`);
  }
}

/** Wait for this registration's worker; `navigator.serviceWorker.ready` waits for that of the page. */
function active(registration) {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Error('it took too long')), READY_MS);
    const look = () => {
      if (!registration.active) return;
      clearTimeout(timer);
      done();
    };
    for (const one of [registration.installing, registration.waiting]) one?.addEventListener('statechange', look);
    look();
  });
}

async function subscribe(registration, key) {
  const options = { userVisibleOnly: true, applicationServerKey: bytes(key) };
  const before = await registration.pushManager.getSubscription();
  if (before && !same(before.options.applicationServerKey, options.applicationServerKey)) await before.unsubscribe(); // of another key
  try {
    return await registration.pushManager.subscribe(options);
  } catch (error) {
    throw new PushError('unsupported', `The browser could not subscribe at its push service: ${error.message}`);
  }
}

async function ask(url, { method, body, token }) {
  const bearer = typeof token === 'function' ? await token() : token;
  const headers = {};
  if (body) headers['Content-Type'] = 'application/json';
  if (bearer) headers.Authorization = `Bearer ${bearer}`;
  let answer;
  try {
    const credentials = bearer ? 'omit' : 'same-origin';
    answer = await fetch(url, { method, headers, credentials, cache: 'no-store', body: body && JSON.stringify(body) });
  } catch {
    throw new PushError('hub', 'The hub does not answer, or does not allow this site (CLARION_ALLOWED_ORIGINS).');
  }
  const text = await answer.text();
  if (answer.ok) return text ? JSON.parse(text) : null;
  let detail = `The hub answered with the status ${answer.status}.`;
  try {
    detail = JSON.parse(text).detail ?? detail;
  } catch {
    // not a problem document
  }
  throw new PushError('hub', detail);
}

async function keep(registration, value) {
  await (await caches.open(STORE)).put(entry(registration), new Response(JSON.stringify(value)));
}

const entry = (registration) => new URL(ENTRY, registration.scope).href;

function bytes(base64url) {
  const text = atob(base64url.replaceAll('-', '+').replaceAll('_', '/'));
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function same(buffer, other) {
  const one = buffer ? new Uint8Array(buffer) : [];
  return one.length === other.length && other.every((value, index) => value === one[index]);
}
