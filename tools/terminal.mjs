/** How the tools read a command line, and what they print. */
import { parseArgs } from 'node:util';

/** What has no shape of its own on a terminal: controls, line breaks, marks of direction. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** A command line that is not understood. */
export class UsageError extends Error {}

/**
 * Runs a tool; what goes wrong is printed, and the process ends with 1, or with 2 for a {@link UsageError}.
 * @param {string} script its name for npm run
 * @param {() => Promise<void>} run
 */
export async function runCommand(script, run) {
  try {
    await run();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    console.error(text.split('\n').map(clean).join('\n'));
    if (error instanceof UsageError) console.error(`npm run ${script} -- help tells more.`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  }
}

/**
 * The options among some arguments, and the rest of these.
 * @template {NonNullable<import('node:util').ParseArgsConfig['options']>} T
 * @param {string[]} args
 * @param {T} options
 */
export function readOptions(args, options) {
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    // What Node says after its first sentence is about options of another form than ours.
    throw new UsageError(/** @type {Error} */ (error).message.replace(/\. .*/s, ''));
  }
}

/**
 * Columns of the terminal; those of the widest table where there is none.
 * @param {number} widest
 */
export function widthOf(widest) {
  return process.stdout.columns || Number(process.env.COLUMNS) || widest;
}

/**
 * Text of unknown origin, on one line, without what would steer a terminal or turn the writing around.
 * @param {string} text
 */
export function clean(text) {
  return text.replace(UNSEEN, '\u{fffd}');
}

/** @param {unknown} value */
export function printJson(value) {
  const text = JSON.stringify(value, null, 2);
  console.log(text.replace(UNSEEN, (chars) => (chars === '\n' ? chars : escaped(chars))));
}

/** @param {string} chars */
function escaped(chars) {
  return chars
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');
}

/**
 * A time, in UTC, to the second.
 * @param {string} time ISO 8601
 */
export function shortTime(time) {
  return time.slice(0, 19).replace('T', ' ');
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} many
 */
export function plural(count, one, many) {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
}

/**
 * The lines of a text that is broken between words.
 * @param {string} text
 * @param {number} width
 */
export function wrapped(text, width) {
  const lines = [];
  let line = '';
  for (const word of clean(text).split(/\s+/)) {
    if (line !== '' && line.length + word.length >= width) {
      lines.push(line);
      line = '';
    }
    line += line === '' ? word : ` ${word}`;
  }
  return [...lines, line];
}
