/**
 * Signs JWTs for development, and issues, lists and revokes the API tokens of an audience. A token alone goes to
 * standard output, what there is to say about it to standard error.
 * Ends with 1 where the gateway refuses or is away, with 2 where the command is not understood.
 */
import { randomUUID } from 'node:crypto';
import { DEVELOPMENT, developmentEnvironment, openGateway } from './gateway.mjs';
import {
  clean,
  printJson,
  readOptions,
  runCommand,
  shortTime,
  UsageError,
  widthOf,
  wrapped,
} from './terminal.mjs';

const usage = `npm run -s token -- <command>

  jwt --sub <user>               signs a JWT, for development: with JWT_SECRET, or what npm start left here
    --audience <name>            default demo
    --username <name>
    --role <role>                user (default), service or admin
    --room <event>/<session>     the room that it is a member of
    --permit-publish <pattern>   only this, or one of these: may be given several times
    --permit-subscribe <pattern>
    --expires <duration>         30s, 15m, 1h (default), 7d, or never

  api create --name <name> --scope <scope>…
                                 issues an API token, which is shown this once
    --scope <scope>              publish:organization, publish:event, publish:session; one or more
    --expires <duration>         as above; default never
  api list                       the API tokens that were not revoked, the newest first
    --limit <number>             how many; default 100
  api revoke <id>                ends one, at every gateway; the token itself will do, too
    --audience <name>            whose, where no token is given (create, list, revoke); default demo

  --json                         prints JSON

api: POSTHORN_URL and POSTHORN_TOKEN (a JWT, role admin) say where and who. Without them: what npm start runs here.`;

/** The widest line of the table's columns, a name of middling length included. */
const TABLE = 116;
const PAGE = 100;
const UNITS = { s: 1, m: 60, h: 3_600, d: 86_400 };
const ROLES = ['user', 'service', 'admin'];

/**
 * @typedef {object} ApiToken as REST gives it
 * @property {string} id
 * @property {string} name
 * @property {string[]} scopes
 * @property {string | null} created_by
 * @property {string} created_at
 * @property {string | null} last_used_at
 * @property {string | null} expires_at
 */

const json = /** @type {const} */ ({ json: { type: 'boolean', default: false } });
const help = /** @type {const} */ ({ help: { type: 'boolean', short: 'h', default: false } });
const common = { ...json, ...help, audience: /** @type {const} */ ({ type: 'string' }) };

/** @type {Record<string, (args: string[]) => Promise<void>>} */
const commands = { jwt, 'api create': create, 'api list': list, 'api revoke': revoke };

await runCommand('token', async () => {
  const [first = '', second = '', ...rest] = process.argv.slice(2);
  if (['help', '--help', '-h'].includes(first)) return console.log(usage);
  const [name, args] = first === 'api' ? [`api ${second}`, rest] : [first, process.argv.slice(3)];
  if (first === '' || name === 'api ')
    throw new UsageError('A command is wanted: jwt, or api create, list or revoke');
  if (args.some((arg) => arg === '--help' || arg === '-h')) return console.log(usage);
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (!command) throw new UsageError(`No such command: ${name}`);
  await command(args);
});

/** @param {string[]} args */
async function jwt(args) {
  const { values, positionals } = readOptions(args, {
    ...common,
    sub: { type: 'string' },
    username: { type: 'string' },
    role: { type: 'string', default: 'user' },
    room: { type: 'string' },
    expires: { type: 'string', default: '1h' },
    'permit-publish': { type: 'string', multiple: true },
    'permit-subscribe': { type: 'string', multiple: true },
  });
  const { audience = DEVELOPMENT, sub, username, role, room } = values;
  none(positionals);
  if (!sub) throw new UsageError('jwt takes --sub: the user whom it is for');
  if (!ROLES.includes(role)) throw new UsageError('--role takes user, service or admin');
  const permissions = {
    ...(values['permit-publish'] && { publish: values['permit-publish'] }),
    ...(values['permit-subscribe'] && { subscribe: values['permit-subscribe'] }),
  };
  const lifetime = secondsOf(values.expires);
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    aud: audience,
    sub,
    ...(username !== undefined && { username }),
    role,
    ...(room !== undefined && { room: roomOf(room) }),
    ...(Object.keys(permissions).length > 0 && { permissions }),
    // Without it the token would count as the oldest there is, and with one it can be revoked by itself.
    iat: now,
    jti: randomUUID(),
    exp: lifetime === null ? null : now + lifetime,
  };
  const secret = signingSecret();
  const { signToken } = await import('./embedded/token.mjs');
  const token = await signToken(secret, claims);
  const { exp, ...rest } = claims;
  if (values.json) printJson({ token, claims: { ...rest, ...(exp !== null && { exp }) } });
  else {
    console.log(token);
    const end = exp === null ? 'without end' : `until ${shortTime(new Date(exp * 1000).toISOString())} UTC`;
    console.error(clean(`${sub} of the audience ${audience}, role ${role}, ${end}`));
  }
}

/** @param {string[]} args */
async function create(args) {
  const { values, positionals } = readOptions(args, {
    ...common,
    name: { type: 'string' },
    scope: { type: 'string', multiple: true },
    expires: { type: 'string', default: 'never' },
  });
  none(positionals);
  const { audience, name, scope } = values;
  if (!name || !scope) throw new UsageError('api create takes --name and --scope');
  const lifetime = secondsOf(values.expires);
  const end = lifetime === null ? {} : { expires_at: new Date(Date.now() + lifetime * 1000).toISOString() };
  const call = await openGateway({ audience, sub: 'npm run token' });
  const { token, ...issued } = await call('POST', '/v1/tokens', { name, scopes: scope, ...end });
  if (values.json) return printJson({ ...issued, token });
  console.log(clean(token));
  const until = issued.expires_at ? `until ${shortTime(issued.expires_at)} UTC` : 'until it is revoked';
  console.error(clean(`${issued.name}: ${issued.scopes.join(', ')}, ${until}. It is shown this once.`));
  console.error(clean(`To end it: npm run token -- api revoke ${issued.id}`));
}

/** @param {string[]} args */
async function list(args) {
  const { values, positionals } = readOptions(args, { ...common, limit: { type: 'string', default: '100' } });
  none(positionals);
  if (!/^[1-9]\d{0,5}$/.test(values.limit)) throw new UsageError('--limit takes a number from 1 to 999999');
  const limit = Number(values.limit);
  const call = await openGateway({ audience: values.audience, sub: 'npm run token' });
  /** @type {ApiToken[]} */
  const items = [];
  let cursor = null;
  do {
    const query = new URLSearchParams({ limit: String(Math.min(PAGE, limit - items.length)) });
    if (cursor) query.set('cursor', cursor);
    const page = await call('GET', `/v1/tokens?${query}`);
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < limit);
  if (values.json) return printJson({ items, more: cursor !== null });
  if (items.length > 0) printList(items, cursor !== null);
  else {
    const whose = process.env.POSTHORN_TOKEN ? '' : ` of the audience ${values.audience ?? DEVELOPMENT}`;
    console.log(clean(`No API tokens${whose}.`));
  }
}

/** @param {string[]} args */
async function revoke(args) {
  const { values, positionals } = readOptions(args, common);
  const [given, ...rest] = positionals;
  none(rest);
  if (!given) throw new UsageError('api revoke takes one id');
  const id = idOf(given);
  const call = await openGateway({ audience: values.audience, sub: 'npm run token' });
  const later = await call('DELETE', `/v1/tokens/${encodeURIComponent(id)}`);
  if (values.json) return printJson({ revoked: id, effective: !later });
  console.log(clean(later ? `Revoked ${id}; not every gateway may have heard of it yet.` : `Revoked ${id}.`));
}

/**
 * What tokens are signed with here.
 * @returns {string}
 */
function signingSecret() {
  const { JWT_SECRET, JWKS_URL, NODE_ENV } = process.env;
  if (NODE_ENV === 'production') throw new Error('jwt is for development: NODE_ENV is production');
  if (JWT_SECRET) return JWT_SECRET;
  if (JWKS_URL) {
    throw new Error(
      'JWKS_URL is set and JWT_SECRET is not: tokens are signed by your identity provider, which alone has the key',
    );
  }
  const { JWT_SECRET: kept } = developmentEnvironment();
  if (kept) return kept;
  throw new Error('JWT_SECRET is needed: npm start has not run here, and the environment has none');
}

/**
 * The id in what a scanner for secrets may have found, or what was given.
 * @param {string} given
 */
function idOf(given) {
  const [, ...parts] = /^ph_(.{8})(.{4})(.{4})(.{4})(.{12})_[0-9a-f]+$/.exec(given) ?? [];
  return parts.length > 0 ? parts.join('-') : given;
}

/**
 * @param {string} text
 * @returns {number | null} null for never
 */
function secondsOf(text) {
  if (text === 'never') return null;
  const [, count, unit] = /^([1-9]\d{0,5})([smhd])$/.exec(text) ?? [];
  if (!count) throw new UsageError('--expires takes a duration, as 30s, 15m, 1h or 7d, or never');
  return Number(count) * UNITS[/** @type {keyof typeof UNITS} */ (unit)];
}

/** @param {string} text */
function roomOf(text) {
  const [event_id, session_id, ...rest] = text.split('/');
  if (!event_id || !session_id || rest.length > 0)
    throw new UsageError('--room takes <event id>/<session id>');
  return { event_id, session_id };
}

/** @param {string[]} rest */
function none(rest) {
  if (rest.length > 0) throw new UsageError(`Too much: ${rest.join(' ')}`);
}

/**
 * @param {ApiToken[]} items
 * @param {boolean} more
 */
function printList(items, more) {
  const width = widthOf(TABLE);
  const wide = width >= TABLE;
  if (wide) console.log(row('ID', 'ISSUED (UTC)', 'LAST USED (UTC)', 'EXPIRES (UTC)', 'NAME'));
  for (const [i, item] of items.entries()) {
    const [id = '', name = '', issued = '', used = '', ends = ''] = [
      item.id,
      item.name,
      minuteOf(item.created_at),
      item.last_used_at ? minuteOf(item.last_used_at) : 'never',
      item.expires_at ? minuteOf(item.expires_at) : 'never',
    ].map(clean);
    const expired = item.expires_at !== null && Date.parse(item.expires_at) <= Date.now();
    const by = item.created_by ? `, issued by ${item.created_by}` : '';
    const rights = clean(`${item.scopes.join(', ')}${by}${expired ? ', expired' : ''}`);
    if (wide) console.log(`${row(id, issued, used, ends, name)}\n  ${rights}`);
    else {
      if (i > 0) console.log('');
      for (const line of wrapped(name, width)) console.log(line);
      console.log(`  ${id}`);
      for (const line of wrapped(rights, width - 2)) console.log(`  ${line}`);
      console.log(`  issued ${issued}\n  last used ${used}\n  expires ${ends}`);
    }
  }
  if (more) console.log(`\nThere are more: --limit ${items.length * 10}`);
}

/**
 * @param {string} id
 * @param {string} issued
 * @param {string} used
 * @param {string} ends
 * @param {string} name
 */
function row(id, issued, used, ends, name) {
  return `${id.padEnd(36)}  ${issued.padEnd(16)}  ${used.padEnd(16)}  ${ends.padEnd(16)}  ${name}`;
}

/** @param {string} time ISO 8601 */
function minuteOf(time) {
  return shortTime(time).slice(0, 16);
}
