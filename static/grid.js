// The grid of categories and channels: one switch for each pair, and one for a channel as a whole.

import { foreign, make } from './dom.js';
import { switchCell } from './settings.js';

export const CHANNELS = {
  in_app: ['In the app', 'in the app'],
  email: ['E-mail', 'e-mail'],
  sms: ['SMS', 'SMS'],
  web_push: ['Push in the browser', 'push in the browser'],
  mobile_push: ['Push on the phone', 'push on the phone'],
};

/** Fill the table and its notes from preferences. `save(control, said, patchOf)` saves a change. */
export function drawGrid(parts, preferences, save) {
  const rows = preferences.grid ?? [];
  const channels = Object.keys(CHANNELS).filter((name) => rows.some((row) => row.channels[name]?.available));
  const hasFocus = parts.table.contains(document.activeElement) ? document.activeElement.id : null;
  parts.table.hidden = rows.length === 0;
  parts.empty.hidden = rows.length > 0;
  parts.table.replaceChildren(head(channels, preferences, save), body(rows, channels, preferences, save));
  if (hasFocus) document.getElementById(hasFocus)?.focus();
  const absent = Object.keys(CHANNELS).filter((name) => !channels.includes(name)).map((name) => CHANNELS[name][1]);
  parts.absent.hidden = absent.length === 0 || rows.length === 0;
  parts.absent.textContent = `Not used by anything here at the moment: ${absent.join(', ')}.`;
  const off = channels.filter((name) => isOff(preferences, name)).map((name) => CHANNELS[name][0]);
  parts.note.textContent = off.length
    ? `${off.join(', ')}: switched off for everything. Only critical notifications still come that way; your choices below count again when you switch it on.`
    : 'The first row switches a way off for everything. Critical notifications come whatever is switched off.';
}

function isOff(preferences, channel) {
  return preferences.channels?.[channel] === false;
}

function head(channels, preferences, save) {
  const titles = channels.map((name) => make('th', { scope: 'col', role: 'columnheader', id: `channel-${name}` }, CHANNELS[name][0]));
  const wholes = channels.map((name) => {
    const isOn = !isOff(preferences, name);
    const control = toggle(`whole-${name}`, `${CHANNELS[name][0]}, for everything`, isOn, {
      change: (on) => save(control, `${CHANNELS[name][0]} is ${word(on)} for everything`, () => ({ channels: { [name]: on } })),
    });
    return make('td', { role: 'cell' }, labelled(control, CHANNELS[name][0]));
  });
  return make('thead', { role: 'rowgroup' },
    make('tr', { role: 'row', class: 'titles' }, make('th', { scope: 'col', role: 'columnheader' }, 'Category'), ...titles),
    make('tr', { role: 'row', class: 'whole' }, make('th', { scope: 'row', role: 'rowheader' }, make('span', { class: 'category' }, 'Everything')), ...wholes));
}

function body(rows, channels, preferences, save) {
  return make('tbody', { role: 'rowgroup' }, ...rows.map((row) => {
    const isLocked = channels.some((name) => row.channels[name]?.locked);
    const title = make('th', { scope: 'row', role: 'rowheader' },
      make('span', { class: 'category' }, foreign(row.title, 100)),
      row.description ? make('span', { class: 'description' }, foreign(row.description, 300)) : null,
      isLocked ? make('span', { class: 'description locked', id: `locked-${row.category}` }, 'Always on: everything in it is critical, such as a warning about the account.') : null);
    return make('tr', { role: 'row' }, title, ...channels.map((name) => cell(row, name, preferences, save)));
  }));
}

function cell(row, channel, preferences, save) {
  const state = row.channels[channel];
  const name = `${CHANNELS[channel][0]}, for ${row.title}`;
  if (!state?.available) {
    return make('td', { role: 'cell', class: 'absent' }, make('span', { 'aria-hidden': 'true' }, '–'), make('span', { class: 'unseen' }, `${name}: not used`));
  }
  const whole = isOff(preferences, channel) && !state.locked;
  const control = toggle(`cell-${row.category}-${channel}`, name, state.allowed, {
    isDisabled: state.locked || whole,
    describedBy: state.locked ? `locked-${row.category}` : whole ? 'categories-note' : null,
    change: (on) => save(control, `${name}, is ${word(on)}`, switchCell(row.category, channel, on)),
  });
  return make('td', { role: 'cell', class: state.locked ? 'is-locked' : '' }, labelled(control, CHANNELS[channel][0]));
}

function word(isOn) {
  return isOn ? 'on' : 'off';
}

function toggle(id, name, isOn, { change, isDisabled = false, describedBy = null }) {
  const control = make('input', {
    type: 'checkbox', role: 'switch', id, 'aria-label': name, disabled: isDisabled, 'aria-describedby': describedBy,
    onchange: () => change(control.checked),
  });
  control.checked = isOn;
  return control;
}

/** The switch with its channel's name, which narrow pages show instead of the column's head. */
function labelled(control, text) {
  return make('label', { class: 'switch' }, make('span', { class: 'cell-name', 'aria-hidden': 'true' }, text), control);
}
