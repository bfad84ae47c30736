/** The little that the page needs of the DOM. Texts of people go into text nodes only: never into markup. */

/**
 * @template {HTMLElement} [E=HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector of a part that is there
 * @returns {E}
 */
export function part(root, selector) {
  const found = /** @type {E | null} */ (root.querySelector(selector));
  if (!found) throw new Error(`The page has no ${selector}`);
  return found;
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} [className]
 * @param {...(Node | string)} content
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, className = '', ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/**
 * A moment as a `<time>`; what is no moment is no text.
 * @param {string | number | Date} moment
 */
export function time(moment) {
  const date = new Date(moment);
  const valid = !Number.isNaN(date.getTime());
  const made = element('time', '', valid ? clock.format(date) : '');
  if (valid) made.dateTime = date.toISOString();
  return made;
}

/** An id that nobody else has: also on pages that are no secure context. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
