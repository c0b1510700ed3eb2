// Making elements. Text from events is hostile until shown: it only ever becomes text nodes, links only http(s), and
// every such text stands in an element of its own, so that marks for the direction of writing end where it ends.

export const byId = (id) => document.getElementById(id);

/** Whether a text may name a user, topic, type or category. */
export const isId = (text) => /^[A-Za-z0-9._:@+|~=-]{1,128}$/.test(text);

/** An element: `make('a', {class: 'x', href: '…', onclick: f}, 'text', child)`. Null and false are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A text of somebody else, isolated and cut at a length that a page can bear. */
export function foreign(text, limit = 300) {
  const whole = String(text ?? '');
  const points = whole.length > limit ? Array.from(whole.slice(0, limit * 2)) : null;
  const shown = points && points.length > limit ? `${points.slice(0, limit).join('')}…` : whole;
  return make('bdi', {}, shown);
}

/** An absolute http(s) address as a link; everything else as text (a relative one belongs to another site). */
export function linkTo(address) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    return make('code', { dir: 'ltr' }, foreign(address, 120));
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return make('code', { dir: 'ltr' }, foreign(address, 120));
  const attributes = { href: url.href, target: '_blank', rel: 'noopener noreferrer', dir: 'ltr' };
  return make('a', attributes, foreign(url.host + (url.pathname === '/' ? '' : url.pathname), 60));
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const day = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });

/** A moment of the API as local time; with its day when that is not today. */
export function time(moment) {
  const date = new Date(moment);
  if (Number.isNaN(date.getTime())) return make('time', {}, '');
  const today = date.toDateString() === new Date().toDateString();
  const text = today ? clock.format(date) : `${day.format(date)} ${clock.format(date).slice(0, 5)}`;
  return make('time', { datetime: moment, title: date.toLocaleString() }, text);
}

/** Put children at the top of a scrolling box without moving what is being read. */
export function putFirst(box, parent, children) {
  const before = box.scrollHeight;
  parent.prepend(...children);
  if (box.scrollTop > 0) box.scrollTop += box.scrollHeight - before;
}
