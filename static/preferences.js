// The preferences page. Each change is saved at once; the page then shows what the hub keeps. What cannot be saved is
// undone, and said in words.

import { Problem, call, root } from './api.js';
import { begin as beginBrowsers } from './browsers.js';
import { byId, foreign, isId, make } from './dom.js';
import { drawGrid } from './grid.js';
import { offerSignIn } from './session.js';
import { Settings, mute, only } from './settings.js';

const { user, operator, timezone: defaultTimezone } = document.body.dataset;
const settings = new Settings(operator ? user : null);
const failed = byId('failed');
const saved = byId('saved');
let saving = 0;
let fading = 0;

function draw() {
  const { preferences } = settings;
  const parts = { table: byId('grid'), empty: byId('grid-empty'), absent: byId('not-set-up'), note: byId('categories-note') };
  drawGrid(parts, preferences, (control, said, patchOf) => save(control, said, () => settings.change(patchOf)));
  drawMuted(preferences);
  drawOnly(preferences);
  drawQuietHours(preferences);
  drawPlace();
}

/** Save, and say how it went. Whatever happens, the page shows afterwards what the hub keeps. */
async function save(control, said, work) {
  saving += 1;
  control?.setAttribute('aria-busy', 'true');
  tell('Saving …');
  let isSaved = false;
  try {
    await work();
    isSaved = true;
    failed.hidden = true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const lost = error.status === 401 && !operator ? ' Open your preferences again from the app that notifies you.' : '';
    failed.replaceChildren(make('strong', {}, 'Not saved. '), `${error.message}${lost} What you see is what counts at the moment.`);
    failed.hidden = false;
    tell('');
  } finally {
    saving -= 1;
    control?.removeAttribute('aria-busy');
    if (saving === 0) {
      draw();
      if (isSaved) tell(`Saved. ${said}.`);
    }
  }
  return isSaved;
}

function tell(text) {
  clearTimeout(fading);
  saved.textContent = text;
  saved.classList.toggle('shown', text !== '');
  fading = setTimeout(() => saved.classList.remove('shown'), 4_000);
}

// ---------------------------------------------------------------- never from, only from

const KINDS = { actors: ['person', 'caused by'], topics: ['topic', 'on the topic'] };

function drawMuted({ muted = {} }) {
  const entries = Object.keys(KINDS).flatMap((kind) => (muted[kind] ?? []).map((id) => ({ kind, id })));
  const items = entries.map(({ kind, id }) => rule(
    [`${KINDS[kind][0]} `, make('strong', {}, foreign(id, 128))], 'Hear again', `Hear again from the ${KINDS[kind][0]} ${id}`,
    (button) => save(button, `${id} is heard again`, () => settings.change(mute(kind, id, false))),
  ));
  byId('muted').replaceChildren(...(items.length ? items : [nothing('Nobody and nothing is muted.')]));
}

function drawOnly({ only: chosen = {}, grid = [] }) {
  const titles = Object.fromEntries(grid.map((row) => [row.category, row.title]));
  const items = Object.entries(chosen.categories ?? {}).flatMap(([category, lists]) => Object.keys(KINDS).flatMap((kind) => (lists[kind] ?? []).map((id) => rule(
    [foreign(titles[category] ?? category, 100), `: only what is ${KINDS[kind][1]} `, make('strong', {}, foreign(id, 128))],
    'Remove', `Remove: ${titles[category] ?? category}, only ${id}`,
    (button) => save(button, `${id} is no longer among those chosen in ${titles[category] ?? category}`, () => settings.change(only(category, kind, id, false))),
  ))));
  byId('only').replaceChildren(...(items.length ? items : [nothing('No category is narrowed: all of it comes from everybody.')]));
  const select = byId('only-category');
  const before = select.value;
  select.replaceChildren(...grid.map((row) => make('option', { value: row.category, selected: row.category === before }, row.title)));
  byId('choose').hidden = grid.length === 0;
}

function rule(words, action, label, onclick) {
  const button = make('button', { type: 'button', class: 'plain', 'aria-label': label }, action);
  button.addEventListener('click', () => onclick(button));
  return make('li', {}, make('span', { class: 'rule-text' }, ...words), button);
}

function nothing(sentence) {
  return make('li', { class: 'quiet' }, sentence);
}

function onIdForm(form, input, add) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const id = input.value.trim();
    input.toggleAttribute('aria-invalid', false);
    if (!isId(id)) {
      input.setAttribute('aria-invalid', 'true');
      input.focus();
      failed.textContent = id ? 'That is not an id: 1 to 128 of A-Z a-z 0-9 . _ : @ + | ~ = -' : 'Give the id of a person or a topic.';
      failed.hidden = false;
      return;
    }
    if (await add(id)) input.value = '';
  });
}

onIdForm(byId('mute'), byId('mute-id'), (id) => {
  const kind = byId('mute-kind').value;
  return save(null, `The ${KINDS[kind][0]} ${id} is muted`, () => settings.change(mute(kind, id, true)));
});
onIdForm(byId('choose'), byId('only-id'), (id) => {
  const [category, kind] = [byId('only-category').value, byId('only-kind').value];
  return save(null, `${id} is among those chosen in ${category}`, () => settings.change(only(category, kind, id, true)));
});

// ---------------------------------------------------------------- quiet hours

const [quietOn, quietStart, quietEnd] = ['quiet-on', 'quiet-start', 'quiet-end'].map(byId);

function drawQuietHours({ quiet_hours: hours = null }) {
  quietOn.checked = hours !== null;
  if (hours) [quietStart.value, quietEnd.value] = [hours.start, hours.end];
  quietStart.disabled = quietEnd.disabled = hours === null;
  byId('quiet-zone').textContent = settings.profile.timezone ?? `${defaultTimezone} (none is set below)`;
}

function saveQuietHours(event) {
  const isOn = quietOn.checked;
  if (isOn && !(quietStart.value && quietEnd.value)) return; // still being typed
  const hours = isOn ? { start: quietStart.value.slice(0, 5), end: quietEnd.value.slice(0, 5) } : null;
  const said = isOn ? `Quiet from ${hours.start} to ${hours.end}` : 'No quiet hours';
  save(event.target, said, () => settings.change(() => ({ quiet_hours: hours })));
}

for (const control of [quietOn, quietStart, quietEnd]) control.addEventListener('change', saveQuietHours);
byId('quiet').addEventListener('submit', (event) => event.preventDefault());

// ---------------------------------------------------------------- language and time zone

const here = Intl.DateTimeFormat().resolvedOptions().timeZone;

function drawPlace() {
  for (const name of ['locale', 'timezone']) if (document.activeElement !== byId(name)) byId(name).value = settings.profile[name] ?? '';
  byId('here').hidden = !here || settings.profile.timezone === here;
  byId('use-here').textContent = `Use this device’s: ${here}`;
}

function saveField(name, value) {
  const wanted = value.trim() || null;
  if (wanted === (settings.profile[name] ?? null)) return;
  const title = name === 'locale' ? 'The language' : 'The time zone';
  const control = byId(name);
  save(control, wanted ? `${title} is ${wanted}` : `${title} is not set`, () => settings.changeProfile({ [name]: wanted })).then((isSaved) => {
    control.toggleAttribute('aria-invalid', false);
    if (!isSaved) control.setAttribute('aria-invalid', 'true');
  });
}

for (const name of ['locale', 'timezone']) byId(name).addEventListener('change', () => saveField(name, byId(name).value));
byId('use-here').addEventListener('click', () => saveField('timezone', here));
byId('place').addEventListener('submit', (event) => event.preventDefault());
byId('timezones').append(...(Intl.supportedValuesOf?.('timeZone') ?? []).map((zone) => make('option', { value: zone })));
const languages = new Set([...navigator.languages, 'en', 'de', 'es', 'fr', 'ja', 'ko', 'pt-BR', 'zh-Hans']);
byId('locales').append(...[...languages].map((tag) => make('option', { value: tag })));

// ---------------------------------------------------------------- begin

byId('leave')?.addEventListener('click', async () => {
  await call('DELETE', 'v1/me/session').catch(() => {});
  location.assign(new URL('preferences', root));
});

async function begin() {
  try {
    await settings.load();
    draw();
    byId('all').hidden = false;
    if (byId('push')) await beginBrowsers();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    failed.textContent = error.message;
    failed.hidden = false;
  }
  byId('loading').hidden = true;
}

begin();
const banner = make('p', { class: 'banner note', id: 'other-link', role: 'status' });
banner.hidden = true;
document.querySelector('.column').prepend(banner);
const asked = () => offerSignIn(operator ? '' : user, banner);
asked();
addEventListener('hashchange', asked);
