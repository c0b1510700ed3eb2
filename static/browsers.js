// "Browser notifications" on the preferences page: turn them on here, send one to try, see and forget one's browsers.

import { Problem, call, root } from './api.js';
import { byId, foreign, make, time } from './dom.js';
import { PushError, disablePush, enablePush, pushState } from './push-client.js';

const hub = root.href.replace(/\/$/, '');
const WORKER = new URL('push-worker.js', root).href;
const [on, off, test, note, said] = ['push-on', 'push-off', 'push-test', 'push-note', 'push-said'].map(byId);

const NOTES = {
  on: 'This browser shows your notifications, also when no page of the app is open.',
  off: 'Let this browser show your notifications, also when no page of the app is open.',
  denied: 'Notifications of this site are blocked in this browser. Allow them in the browser’s settings for this site, and come back.',
  insecure: 'Browsers allow notifications only on pages that came over https.',
  unsupported: 'This browser does not know web push. On an iPhone or iPad, add this page to the home screen first.',
};

// The page allows no script address but this one to be made from a text.
const trusted = globalThis.trustedTypes?.createPolicy('clarion-worker', {
  createScriptURL(text) {
    if (text !== WORKER) throw new TypeError('not the worker of this page');
    return text;
  },
});

async function draw() {
  const state = await pushState({ scope: root.href });
  note.textContent = NOTES[state];
  on.hidden = state !== 'off';
  off.hidden = test.hidden = state !== 'on';
  const { data } = await call('GET', 'v1/me/push-subscriptions');
  byId('browsers').replaceChildren(...data.push_subscriptions.map(browser));
}

function browser({ id, service, used_at: used }) {
  const button = make('button', { type: 'button', class: 'plain', 'aria-label': `Forget the browser at ${service}` }, 'Forget');
  button.addEventListener('click', () => work(button, 'That browser is forgotten.', () => call('DELETE', 'v1/me/push-subscriptions', { body: { id } })));
  return make('li', {}, make('span', { class: 'rule-text' }, 'A browser at ', foreign(service, 100), ', registered ', time(used)), button);
}

/** Do something, and say how it went. */
async function work(button, done, job) {
  button.setAttribute('aria-busy', 'true');
  said.classList.remove('wrong');
  said.textContent = 'One moment …';
  try {
    await job();
    said.textContent = done;
  } catch (error) {
    if (!(error instanceof Problem || error instanceof PushError)) throw error;
    said.classList.add('wrong');
    said.textContent = error.message;
  } finally {
    button.removeAttribute('aria-busy');
    await draw().catch((error) => { said.textContent = error.message; });
  }
}

const sendTest = () => call('POST', 'v1/me/push-subscriptions/test');

/** Make the section work. */
export function begin() {
  on.addEventListener('click', () => work(on, 'It is on. A notification to try it is on its way; quiet hours hold it back.', async () => {
    await enablePush({ hub, serviceWorker: trusted ? trusted.createScriptURL(WORKER) : WORKER, scope: root.href });
    await sendTest();
  }));
  off.addEventListener('click', () => work(off, 'It is off in this browser.', () => disablePush({ hub, scope: root.href })));
  test.addEventListener('click', () => work(test, 'A notification is on its way; quiet hours hold it back.', sendTest));
  return draw();
}
