// Signing in with a link: `/preferences#token=…`. The part behind # never leaves the browser by itself, so the token is
// in no log; here it becomes the session's cookie, and leaves the address at once.

import { Problem, call, root } from './api.js';
import { byId, foreign, make } from './dom.js';

/** The token of the address, taken out of it; null without one. */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (location.hash) history.replaceState(null, '', location.pathname + location.search);
  return token;
}

/** Whom a token names, unchecked: only for asking. */
export function nameIn(token) {
  try {
    const claims = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return String(JSON.parse(atob(claims)).sub ?? '');
  } catch {
    return '';
  }
}

/** Begin the session of a token and open its preferences. Throws `Problem`. */
export async function signIn(token) {
  await call('POST', 'v1/me/session', { token });
  location.replace(new URL('preferences', root));
}

async function onSignedOutPage() {
  const token = takeToken();
  const sentence = byId('sentence');
  if (!token || !sentence) return;
  sentence.textContent = 'Signing in …';
  try {
    await signIn(token);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    sentence.textContent = error.status === 401
      ? 'The link that brought you here does not work any more. Open your preferences again from the app that notifies you.'
      : error.message;
  }
}

/** On a page where somebody is signed in already: a link for somebody else asks first. */
export async function offerSignIn(current, banner) {
  const token = takeToken();
  const name = token ? nameIn(token) : '';
  if (!token || name === current) return;
  const go = () => signIn(token).catch((error) => banner.replaceChildren(error.message));
  banner.replaceChildren(
    'The link that you followed is for ', make('strong', {}, foreign(name || 'somebody else', 128)), ', not for the session of this browser. ',
    make('button', { type: 'button', onclick: go }, 'Sign in with it'),
  );
  banner.hidden = false;
}

if (!document.body.classList.contains('preferences')) {
  onSignedOutPage();
  addEventListener('hashchange', onSignedOutPage);
}
