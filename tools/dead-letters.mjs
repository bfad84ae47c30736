/**
 * Lists, shows, redrives and deletes the dead letters of an audience, by the gateway's REST calls.
 * Ends with 1 where the gateway refuses or is away, with 2 where the command is not understood.
 */
import { DEVELOPMENT, openGateway } from './gateway.mjs';
import {
  clean,
  plural,
  printJson,
  readOptions,
  runCommand,
  shortTime,
  UsageError,
  widthOf,
  wrapped,
} from './terminal.mjs';

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

await runCommand('dead-letters', run);

async function run() {
  const { command, id, options } = readCommand();
  if (command === 'help') {
    console.log(usage);
    return;
  }
  const call = await openGateway({ audience: options.audience, sub: 'dead-letters' });
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
  const parsed = readOptions(process.argv.slice(2), {
    all: { type: 'boolean', default: false },
    audience: { type: 'string' },
    code: { type: 'string' },
    consumer: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
    json: { type: 'boolean', default: false },
    limit: { type: 'string', default: '20' },
  });
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
  const width = widthOf(TABLE);
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

/**
 * Tries, and redrives where there were any.
 * @param {number} tries
 * @param {number} redrives
 */
function drives(tries, redrives) {
  return redrives === 0 ? String(tries) : `${tries} +${redrives}`;
}
