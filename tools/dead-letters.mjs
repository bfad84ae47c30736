/**
 * Lists, shows, redrives and deletes the dead letters of an audience, by the gateway's REST calls.
 * Ends with 1 where the gateway refuses or is away, with 2 where the command is not understood.
 */
import { existsSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { environmentFile, homeOf } from './home.mjs';

const usage = `npm run dead-letters -- <command>

  list                      what waits, the oldest first
  show <id>                 one of them, with its event
  redrive <id>              gives the event to the consumer that gave it up, once more
  redrive --all             all that wait, or those of --consumer and --code
  delete <id>               for good

  --consumer <name>         only those of this consumer (list, redrive --all)
  --code <code>             only those with this code (list, redrive --all)
  --limit <number>          how many to list; default 20
  --audience <name>         whose, where no token is given; default demo
  --json                    prints JSON (with npm run -s, nothing else)

POSTHORN_URL and POSTHORN_TOKEN (a JWT, role admin) say where and who. Without them: what npm start runs here.`;

/** The widest line of the table's columns. */
const TABLE = 116;
const PAGE = 100;
/** What has no shape of its own on a terminal: controls, line breaks, marks of direction. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
/** How long a call may take, in milliseconds: to mark all letters takes the gateway 30 s at most. */
const PATIENCE = 60_000;
/** The audience that `npm start` creates. */
const DEVELOPMENT = 'demo';

/**
 * @typedef {object} Letter
 * @property {string} id
 * @property {string} consumer
 * @property {string} code
 * @property {string} reason
 * @property {number} tries
 * @property {number} redrives
 * @property {string} time
 * @property {{ id: string, topic: string, scope: string, source: string | null, time: string,
 *   position: string | null, headers?: Record<string, string>, payload?: unknown, payload_base64?: string }} event
 */

class UsageError extends Error {}

try {
  await run();
} catch (error) {
  const text = error instanceof Error ? error.message : String(error);
  console.error(text.split('\n').map(clean).join('\n'));
  if (error instanceof UsageError) console.error('npm run dead-letters -- help tells more.');
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

async function run() {
  const { command, id, options } = readCommand();
  if (command === 'help') {
    console.log(usage);
    return;
  }
  const call = await gateway(options.audience);
  const { audience = DEVELOPMENT, consumer, code, json } = options;
  const which = { ...(consumer !== undefined && { consumer }), ...(code !== undefined && { code }) };
  const path = `/v1/dead-letters/${encodeURIComponent(id ?? '')}`;
  switch (command) {
    case 'list': {
      const { items, more } = await listed(call, which, options.limit);
      if (json) printJson({ items, more });
      else if (items.length > 0) printList(items, more);
      else console.log(`No dead letters${process.env.POSTHORN_TOKEN ? '' : ` of the audience ${audience}`}.`);
      return;
    }
    case 'show': {
      const letter = /** @type {Letter} */ (await call('GET', path));
      if (json) printJson(letter);
      else printLetter(letter);
      return;
    }
    case 'redrive': {
      const answer = id
        ? await call('POST', `${path}/redrive`)
        : await call('POST', '/v1/dead-letters/redrive', { all: true, ...which });
      if (json) printJson(answer);
      else console.log(redriveNote(answer.redriving, id));
      return;
    }
    case 'delete':
      await call('DELETE', path);
      if (json) printJson({ deleted: id });
      else console.log(`Deleted ${id}.`);
  }
}

function readCommand() {
  let parsed;
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        all: { type: 'boolean', default: false },
        audience: { type: 'string' },
        code: { type: 'string' },
        consumer: { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
        json: { type: 'boolean', default: false },
        limit: { type: 'string', default: '20' },
      },
    });
  } catch (error) {
    // What Node says after its first sentence is about options of another form than ours.
    throw new UsageError(/** @type {Error} */ (error).message.replace(/\. .*/s, ''));
  }
  const { all, help, limit, ...options } = parsed.values;
  const [command = 'list', id, ...rest] = parsed.positionals;
  const read = { command, id, options: { ...options, limit: Number(limit) } };
  if (help || command === 'help') return { ...read, command: 'help' };
  if (!['list', 'show', 'redrive', 'delete'].includes(command))
    throw new UsageError(`No such command: ${command}`);
  if (rest.length > 0) throw new UsageError(`Too much: ${rest.join(' ')}`);
  if (!/^[1-9]\d{0,5}$/.test(limit)) throw new UsageError('--limit takes a number from 1 to 999999');
  if (all && command !== 'redrive') throw new UsageError(`--all is for redrive, not for ${command}`);
  if (command === 'list' ? id !== undefined : (id === undefined) !== all) {
    const takes = { list: 'no id', redrive: 'one id, or --all' }[command] ?? 'one id';
    throw new UsageError(`${command} takes ${takes}`);
  }
  const narrowed = options.consumer !== undefined || options.code !== undefined;
  if (narrowed && command !== 'list' && !all) {
    throw new UsageError(
      `--consumer and --code are for list and redrive --all, not for ${command}${id ? ' <id>' : ''}`,
    );
  }
  return read;
}

/**
 * Where to call, and with whose token: what the environment says, else what `npm start` has left here.
 * @param {string | undefined} audience
 */
async function gateway(audience) {
  const { POSTHORN_URL, POSTHORN_TOKEN } = process.env;
  const dev = developmentEnvironment();
  const url = ((POSTHORN_URL || dev.POSTHORN_URL) ?? 'http://127.0.0.1:8080').replace(/\/+$/, '');
  if (POSTHORN_TOKEN && audience !== undefined) {
    throw new UsageError('--audience is for when no token is given: POSTHORN_TOKEN is of one audience');
  }
  if (!URL.canParse(url)) throw new Error(`POSTHORN_URL is ${url}: it wants a URL, as http://127.0.0.1:8080`);
  const token = POSTHORN_TOKEN || (await developmentToken(dev, url, audience ?? DEVELOPMENT));
  // Told here: fetch would say it with the token in its message.
  if (/[^\x21-\x7e]/.test(token)) throw new Error('POSTHORN_TOKEN is no JWT');
  /**
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   * @returns {Promise<any>} undefined where there is no body
   */
  return async (method, path, body) => {
    const response = await fetch(url + path, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body && { 'content-type': 'application/json' }),
      },
      ...(body && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(PATIENCE),
    }).catch((error) => {
      throw new Error(
        `${url} does not answer: ${error.cause?.message || error.cause?.code || error.message}`,
      );
    });
    const text = await response.text();
    if (!response.ok) throw new Error(refusalOf(response.status, text));
    return answerOf(response.status, text);
  };
}

/**
 * @param {number} status
 * @param {string} text
 */
function answerOf(status, text) {
  if (status === 204) return undefined;
  try {
    return Object(JSON.parse(text));
  } catch {
    throw new Error(`What answered ${status} is no gateway: it sent no JSON`);
  }
}

/**
 * What `npm start` writes; empty where it never ran.
 * @returns {Record<string, string>}
 */
function developmentEnvironment() {
  const file = environmentFile(homeOf(process.env));
  if (!existsSync(file)) return {};
  const entries = readFileSync(file, 'utf8').matchAll(/^(\w+)='(.*)'$/gm);
  return Object.fromEntries(
    [...entries].map(([, name = '', value = '']) => [name, value.replaceAll("'\\''", "'")]),
  );
}

/**
 * @param {Record<string, string>} dev
 * @param {string} url
 * @param {string} audience
 */
async function developmentToken(dev, url, audience) {
  // The secret of this checkout is no business of any other deployment.
  if (!dev.JWT_SECRET || url !== dev.POSTHORN_URL) {
    const own = dev.POSTHORN_URL
      ? `the npm start of this folder is ${dev.POSTHORN_URL}`
      : 'npm start has not run here';
    throw new Error(`POSTHORN_TOKEN is needed: a JWT of role admin that ${url} accepts; ${own}`);
  }
  const { signToken } = await import('./embedded/token.mjs');
  const exp = Math.floor(Date.now() / 1000) + 300;
  return signToken(dev.JWT_SECRET, { aud: audience, sub: 'dead-letters', role: 'admin', exp });
}

/**
 * @param {number} status
 * @param {string} text
 */
function refusalOf(status, text) {
  try {
    const { code, detail, errors = [] } = JSON.parse(text);
    const findings = errors.map(
      (/** @type {any} */ { path, message }) => `\n  ${clean(`${path} ${message}`)}`,
    );
    return `${clean(`${detail} (${status} ${code})`)}${findings.join('')}`;
  } catch {
    return `The gateway answered ${status}`;
  }
}

/**
 * @param {(method: string, path: string) => Promise<any>} call
 * @param {Record<string, string>} which
 * @param {number} limit
 */
async function listed(call, which, limit) {
  /** @type {Letter[]} */
  const items = [];
  let cursor = null;
  do {
    const query = new URLSearchParams({ ...which, limit: String(Math.min(PAGE, limit - items.length)) });
    if (cursor) query.set('cursor', cursor);
    const page = await call('GET', `/v1/dead-letters?${query}`);
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < limit);
  return { items, more: cursor !== null };
}

/**
 * @param {Letter[]} items
 * @param {boolean} more
 */
function printList(items, more) {
  const width = process.stdout.columns || Number(process.env.COLUMNS) || TABLE;
  if (width >= TABLE) console.log(row('ID', 'GIVEN UP (UTC)', 'TRIES', 'CODE', 'TOPIC'));
  for (const [i, { tries, redrives, reason, consumer, ...item }] of items.entries()) {
    if (width < TABLE && i > 0) console.log('');
    const [id = '', time = '', code = '', topic = ''] = [
      item.id,
      shortTime(item.time),
      item.code,
      item.event.topic,
    ].map(clean);
    if (width >= TABLE) console.log(row(id, time, drives(tries, redrives), code, topic));
    else console.log(`${id}\n  ${code}  ${topic}\n  ${time}  tries ${drives(tries, redrives)}`);
    for (const line of wrapped(`${reason} [${consumer}]`, width - 2)) console.log(`  ${line}`);
  }
  if (more) console.log(`\nThere are more: --limit ${items.length * 10}`);
}

/**
 * @param {string} id
 * @param {string} time
 * @param {string} tries
 * @param {string} code
 * @param {string} topic
 */
function row(id, time, tries, code, topic) {
  return `${id.padEnd(36)}  ${time.padEnd(19)}  ${tries.padEnd(5)}  ${code.padEnd(17)}  ${topic}`;
}

/** @param {Letter} letter */
function printLetter({ event, ...letter }) {
  const fields = {
    id: letter.id,
    consumer: letter.consumer,
    code: letter.code,
    reason: letter.reason,
    'given up': `${shortTime(letter.time)} UTC, after ${plural(letter.tries, 'try', 'tries')}`,
    redriven: letter.redrives === 0 ? 'never' : `${plural(letter.redrives, 'time', 'times')} in vain`,
    event: event.id,
    topic: `${event.topic} (${event.scope})`,
    source: event.source ?? '-',
    stored: `${shortTime(event.time)} UTC${event.position ? `, at ${event.position}` : ''}`,
  };
  for (const [name, value] of Object.entries(fields)) console.log(`${name.padEnd(9)} ${clean(value)}`);
  for (const [name, value] of Object.entries(event.headers ?? {})) {
    console.log(`${'header'.padEnd(9)} ${clean(`${name}: ${value}`)}`);
  }
  const base64 = event.payload_base64 !== undefined;
  console.log(base64 ? '\npayload, not JSON, in base64:' : '\npayload:');
  const text = base64 ? event.payload_base64 : JSON.stringify(event.payload, null, 2);
  console.log(text?.split('\n').map(clean).join('\n'));
}

/**
 * @param {number} redriving
 * @param {string | undefined} id
 */
function redriveNote(redriving, id) {
  if (id) return redriving === 1 ? `Redriving ${id}.` : `${id} is on its way already.`;
  return redriving === 0
    ? 'None to redrive.'
    : `Redriving ${plural(redriving, 'dead letter', 'dead letters')}.`;
}

/** @param {unknown} value */
function printJson(value) {
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

/** @param {string} time */
function shortTime(time) {
  return time.slice(0, 19).replace('T', ' ');
}

/**
 * Tries, and redrives where there were any.
 * @param {number} tries
 * @param {number} redrives
 */
function drives(tries, redrives) {
  return redrives === 0 ? String(tries) : `${tries} +${redrives}`;
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} many
 */
function plural(count, one, many) {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
}

/**
 * Text of unknown origin, on one line, without what would steer a terminal or turn the writing around.
 * @param {string} text
 */
function clean(text) {
  return text.replace(UNSEEN, '\u{fffd}');
}

/**
 * @param {string} text
 * @param {number} width
 */
function wrapped(text, width) {
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
