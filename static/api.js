// Calls of the HTTP API. What goes wrong becomes a `Problem` whose message is a sentence for people.

/** Where the hub is: pages stand directly below it, also when the public address has a path. */
export const root = new URL('.', document.baseURI);

export class Problem extends Error {
  constructor(sentence, status = 0, code = '') {
    super(sentence);
    this.status = status; // 0: no answer at all
    this.code = code;
  }
}

/** Call the API with the session's cookie, or as the bearer of `token`. Resolves to `{data, etag, status}`. */
export async function call(method, path, { body, headers = {}, token } = {}) {
  const given = { ...headers };
  if (body !== undefined) given['Content-Type'] ??= 'application/json';
  if (token) given.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(new URL(path, root), {
      method,
      headers: given,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
    });
  } catch {
    throw new Problem('The hub does not answer. Look whether it runs, and try again.');
  }
  const text = await response.text().catch(() => '');
  const data = parsed(text);
  if (!response.ok) throw problemOf(response, data);
  return { data, etag: response.headers.get('ETag'), status: response.status };
}

function parsed(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

function problemOf(response, problem) {
  const { status } = response;
  const wait = response.headers.get('Retry-After');
  let sentence = problem?.detail ?? `The hub answered with the status ${status}.`;
  const places = (problem?.errors ?? []).filter((one) => one.detail && !sentence.includes(one.detail));
  if (places.length) sentence += ` ${places.map((one) => `${one.pointer.replace(/^\//, '') || 'The body'}: ${one.detail}`).join(' ')}`;
  if (status === 401) sentence = 'Your session has ended. Sign in again, and repeat what you did.';
  else if (wait) sentence += ` Try again in ${wait} s.`;
  return new Problem(sentence, status, problem?.code ?? '');
}
