// The operator's dashboard: the live log, a form that publishes, and the inbox of the user it publishes to.
//
// Two connections: the operator's (by the session's cookie) listens to `log`; the other is that of the watched user, with
// a token of some minutes from `POST /dashboard/watch`. It says that nobody looks, so it never counts as reaching them.

import { Problem, call, root } from './api.js';
import { LiveClient } from './client.js';
import { byId, isId, make } from './dom.js';
import { Inbox } from './inbox.js';
import { LiveLog } from './log.js';
import { TryIt } from './publish.js';

const socketAddress = new URL('connection/websocket', root);
socketAddress.protocol = socketAddress.protocol === 'https:' ? 'wss:' : 'ws:';

const WORDS = { connecting: 'Connecting …', live: 'Live', ended: 'Disconnected', closed: 'Disconnected' };

/** Show the state of a connection beside what it feeds. */
function showState(chip, client) {
  client.addEventListener('state', ({ detail }) => {
    chip.className = `chip ${detail.state}`;
    chip.replaceChildren(WORDS[detail.state] ?? `No connection; next try in ${detail.seconds} s `);
    if (detail.state === 'waiting') chip.append(make('button', { type: 'button', class: 'plain', onclick: () => client.hurry() }, 'Now'));
    if (detail.state === 'ended') chip.append(' ', make('button', { type: 'button', class: 'plain', onclick: () => client.open() }, 'Again'));
  });
}

function complain(...words) {
  const banner = byId('banner');
  banner.replaceChildren(...words);
  banner.hidden = false;
}

function sessionEnded() {
  complain(
    'Your session has ended, so nothing new shows here. Get a new link with ',
    make('code', {}, 'clarion dashboard'),
    ' and open it in this browser.',
  );
}

// ---------------------------------------------------------------- the log

const operator = new LiveClient(socketAddress);
const log = new LiveLog(
  {
    body: byId('log'),
    box: byId('log-scroll'),
    empty: byId('log-empty'),
    filter: byId('filter'),
    pause: byId('pause'),
    eventsRate: byId('events-rate'),
    linesRate: byId('lines-rate'),
  },
  (user) => watch(user),
);
showState(byId('log-state'), operator);
operator.subscribe('log');

async function loadLog() {
  try {
    await log.load();
    byId('banner').hidden = true;
  } catch (error) {
    if (error instanceof Problem && error.status === 401) sessionEnded();
    else log.fail(error);
  }
}

operator.addEventListener('publication', ({ detail }) => detail.channel === 'log' && log.receive(detail.data));
operator.addEventListener('subscribed', ({ detail }) => detail.channel === 'log' && !detail.recovered && loadLog());
operator.addEventListener('refused', ({ detail }) => detail.channel === 'log' && complain(`The live log was refused: ${detail.message}.`));
operator.addEventListener('state', ({ detail }) => detail.state === 'ended' && loadLog());

// ---------------------------------------------------------------- somebody's inbox

let watched = null; // {user, client}

const inboxParts = {
  list: byId('inbox'),
  box: byId('inbox-scroll'),
  empty: byId('inbox-empty'),
  older: byId('older'),
  unread: byId('unread'),
  readAll: byId('read-all'),
  said: byId('inbox-said'),
};

function watch(user) {
  if (!isId(user) || watched?.user === user) return;
  watched?.client.close();
  const token = async () => (await call('POST', 'dashboard/watch', { body: { user } })).data.token;
  // No recovery: after each connection the inbox is read anew, with its counts.
  const client = new LiveClient(socketAddress, { token, visible: false, recover: false });
  const inbox = new Inbox(client, inboxParts);
  watched = { user, client };
  showState(byId('inbox-state'), client);
  const load = () => inbox.load().catch(() => {}); // lost on the way: the next connection reads again
  client.addEventListener('state', ({ detail }) => {
    if (detail.state === 'live') load();
    if (detail.state === 'ended' && byId('banner').hidden) complain(detail.reason || 'The hub refused the connection to the inbox.');
  });
  client.addEventListener('publication', ({ detail }) => inbox.receive(detail.data));
  client.addEventListener('gap', load);
  client.open();
  form.setUser(user);
  byId('inbox-user').textContent = user;
  const link = byId('inbox-preferences');
  link.href = `preferences?user=${encodeURIComponent(user)}`;
  link.querySelector('bdi').textContent = user;
}

// ---------------------------------------------------------------- the form, the session

const form = new TryIt({ onUser: watch, onSent: (id) => log.find(id) });

byId('leave').addEventListener('click', async () => {
  await call('DELETE', 'v1/me/session').catch(() => {});
  location.assign(new URL('dashboard', root));
});

operator.open();
watch(form.user);
form.offer().catch(() => {}); // without it `message` and any id still work; a lost session is told by the log
