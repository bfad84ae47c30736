/** Whose pages may call: one allow-list, and one judgement for CORS, sockets and event streams (docs/security.md). */
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';

/** `scheme://host[:port]` as RFC 6454 writes an origin: no path, no user, nothing around it. */
const WRITTEN = /^([a-z][a-z0-9+.-]*):\/\/([^/\\?#@%\s,]+)$/i;
const ANY_SUBDOMAIN = '*.';

interface Origin {
  /** In lower case, with the colon. */
  readonly scheme: string;
  /** In lower case, international names in their ASCII form. */
  readonly host: string;
  /** Empty for the scheme's own. */
  readonly port: string;
}

function parseOrigin(text: string): Origin | undefined {
  const [, scheme, authority] = WRITTEN.exec(text) ?? [];
  if (!scheme || !authority) return undefined;
  // Ports and names are normalised for the schemes of the web alone: `capacitor://localhost` is parsed as one of them.
  const ofWeb = /^https?$/i.test(scheme);
  const like = `${ofWeb ? scheme : 'https'}://${authority}`;
  if (!URL.canParse(like)) return undefined;
  const { hostname, port } = new URL(like);
  // An empty label, or the dot of a fully qualified name: to browsers that is another origin.
  if (/^\.|\.\.|\.$/.test(hostname)) return undefined;
  return { scheme: `${scheme.toLowerCase()}:`, host: hostname, port };
}

interface Entry extends Origin {
  /** Whether it means the names below the host instead of the host. */
  readonly below: boolean;
}

function parseEntry(text: string): Entry | undefined {
  const below = text.includes(`://${ANY_SUBDOMAIN}`);
  const origin = parseOrigin(below ? text.replace(`://${ANY_SUBDOMAIN}`, '://') : text.replace(/\/$/, ''));
  if (!origin) return undefined;
  const { host } = origin;
  if (host.includes('*')) return undefined;
  // Everything below a top-level domain, or "below" a number, is no team's.
  if (below && (isIP(host.replace(/^\[|\]$/g, '')) || !(host.includes('.') || host === 'localhost')))
    return undefined;
  return { ...origin, below };
}

/** Whether an entry of ALLOWED_ORIGINS is one: `*`, `https://app.example`, `https://*.app.example`. */
export function isOriginEntry(text: string): boolean {
  return text === '*' || parseEntry(text) !== undefined;
}

/** What a browser says of where a request comes from. */
export type Whence = Pick<IncomingHttpHeaders, 'origin' | 'host' | 'sec-fetch-mode' | 'sec-fetch-site'>;

export class Origins {
  /** Whether every origin is allowed, `null` too. */
  readonly all: boolean;
  readonly #entries: readonly Entry[];
  readonly #ownToo: boolean;

  /**
   * @param allowed entries for which {@link isOriginEntry} is true
   * @param ownToo whether pages of the gateway itself may call
   */
  constructor(allowed: readonly string[], ownToo: boolean) {
    this.all = allowed.includes('*');
    this.#entries = allowed.flatMap((text) => parseEntry(text) ?? []);
    this.#ownToo = ownToo;
  }

  /** Whether an `Origin` is on the list. `null`, which pages of no origin send, is only where all are. */
  includes(origin: string): boolean {
    if (this.all) return true;
    const asked = parseOrigin(origin);
    return asked !== undefined && this.#entries.some((entry) => isOf(asked, entry));
  }

  /**
   * Whether what sends these headers may open sockets and streams. Programs without a browser send no `Origin`; nor
   * does a page that embeds the URL as a picture or a script, but then the browser says so.
   */
  admits({ origin, host, ...fetch }: Whence): boolean {
    if (this.all) return true;
    if (origin === undefined) {
      return fetch['sec-fetch-mode'] !== 'no-cors' || fetch['sec-fetch-site'] === 'same-origin';
    }
    return this.includes(origin) || (this.#ownToo && isSelf(origin, host));
  }
}

function isOf({ scheme, host, port }: Origin, entry: Entry): boolean {
  if (scheme !== entry.scheme || port !== entry.port) return false;
  return entry.below ? host.endsWith(`.${entry.host}`) : host === entry.host;
}

/** Whether a page is the gateway's own, whatever stands in front of it speaks. */
export function isSelf(origin: string, host: string | undefined): boolean {
  return host !== undefined && (origin === `http://${host}` || origin === `https://${host}`);
}
