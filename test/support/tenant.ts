/** An audience of a test cluster, with calls, sockets and a publisher for any of its people. */
import { connectPubSub, type PubSub } from '@posthorn/bus';
import type { TestCluster } from '@posthorn/testing';
import { type Answer, CourierSocket, call } from './courier-client.js';

/** A call with the token that it was made for. */
export type Caller = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<Answer>;

export interface Tenant {
  readonly audience: string;
  /** A JWT, good for ten minutes unless the claims say otherwise. */
  token(sub: string, claims?: object): Promise<string>;
  as(sub: string, claims?: object): Promise<Caller>;
  socket(sub: string, claims?: object): Promise<CourierSocket>;
  readonly service: Caller;
  /** A service of the platform with the server SDK. The caller closes it. */
  pubsub(source?: string): PubSub;
}

/** Creates an audience on a cluster. */
export async function createTenant(cluster: TestCluster, audience: string): Promise<Tenant> {
  const base = () => cluster.gatewayUrls[0]!;
  const token = (sub: string, claims: object = {}) =>
    cluster.token({ aud: audience, sub, exp: seconds() + 600, ...claims });
  const as = async (sub: string, claims: object = {}): Promise<Caller> => {
    const jwt = await token(sub, claims);
    return (method, path, body, headers) => call(base(), jwt, method, path, body, headers);
  };
  const service = await as('svc', { role: 'service' });
  const { status } = await service('POST', '/v1/audience');
  if (status !== 201 && status !== 200) throw new Error(`POST /v1/audience answered ${status}`);
  return {
    audience,
    token,
    as,
    socket: async (sub, claims = {}) => CourierSocket.open(base(), await token(sub, claims)),
    service,
    pubsub: (source = 'test') => connectPubSub({ servers: cluster.natsUrl, audience, source }),
  };
}

/** Now, in seconds since 1970. */
export function seconds(): number {
  return Math.floor(Date.now() / 1_000);
}

/** Asks again until the answer is there. For state that has no event to wait for. */
export async function eventually<T>(ask: () => Promise<T | undefined>, timeout = 20_000): Promise<T> {
  const deadline = Date.now() + timeout;
  for (;;) {
    const found = await ask();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`not within ${timeout} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Every notification of a user's inbox, page by page. */
// biome-ignore lint/suspicious/noExplicitAny: notifications as REST gives them
export async function wholeInbox(caller: Caller): Promise<any[]> {
  const items = [];
  let cursor: string | null = null;
  do {
    const query: string = cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`;
    const { status, body } = await caller('GET', `/v1/notifications?limit=100${query}`);
    if (status !== 200) throw new Error(`GET /v1/notifications answered ${status}: ${JSON.stringify(body)}`);
    items.push(...body.items);
    cursor = body.next_cursor;
  } while (cursor !== null);
  return items;
}
