/** Calls of the gateway from a shell: to the one that the environment names, else to that of `npm start`. */
import { existsSync, readFileSync } from 'node:fs';
import { environmentFile, homeOf } from './home.mjs';
import { clean, UsageError } from './terminal.mjs';

/** The audience that `npm start` creates. */
export const DEVELOPMENT = 'demo';
/** How long a call may take, in milliseconds: to mark all dead letters takes the gateway 30 s at most. */
const PATIENCE = 60_000;

/**
 * A call of the gateway. Rejects with what it refused, ready to be printed.
 * @callback Call
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<any>} undefined for a 204, an empty object for a 202 without a body
 */

/**
 * Where to call, and with whose token: what `POSTHORN_URL` and `POSTHORN_TOKEN` say, else what `npm start` has
 * left here, as an admin.
 * @param {{ audience: string | undefined, sub: string }} as whose, where no token is given
 * @returns {Promise<Call>}
 */
export async function openGateway({ audience, sub }) {
  const { POSTHORN_URL, POSTHORN_TOKEN } = process.env;
  const dev = developmentEnvironment();
  const url = ((POSTHORN_URL || dev.POSTHORN_URL) ?? 'http://127.0.0.1:8080').replace(/\/+$/, '');
  if (POSTHORN_TOKEN && audience !== undefined) {
    throw new UsageError('--audience is for when no token is given: POSTHORN_TOKEN is of one audience');
  }
  if (!URL.canParse(url)) throw new Error(`POSTHORN_URL is ${url}: it wants a URL, as http://127.0.0.1:8080`);
  const token = POSTHORN_TOKEN || (await developmentToken(dev, url, { aud: audience ?? DEVELOPMENT, sub }));
  // Told here: fetch would say it with the token in its message.
  if (/[^\x21-\x7e]/.test(token)) throw new Error('POSTHORN_TOKEN is no JWT');
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
 * What `npm start` writes; empty where it never ran.
 * @returns {Record<string, string>}
 */
export function developmentEnvironment() {
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
 * @param {{ aud: string, sub: string }} claims
 */
async function developmentToken(dev, url, claims) {
  // The secret of this checkout is no business of any other deployment.
  if (!dev.JWT_SECRET || url !== dev.POSTHORN_URL) {
    const own = dev.POSTHORN_URL
      ? `the npm start of this folder is ${dev.POSTHORN_URL}`
      : 'npm start has not run here';
    throw new Error(`POSTHORN_TOKEN is needed: a JWT of role admin that ${url} accepts; ${own}`);
  }
  const { signToken } = await import('./embedded/token.mjs');
  const exp = Math.floor(Date.now() / 1000) + 300;
  return signToken(dev.JWT_SECRET, { ...claims, role: 'admin', exp });
}

/**
 * @param {number} status
 * @param {string} text
 */
function answerOf(status, text) {
  if (status === 204) return undefined;
  if (status === 202 && text === '') return {};
  try {
    return Object(JSON.parse(text));
  } catch {
    throw new Error(`What answered ${status} is no gateway: it sent no JSON`);
  }
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
