/** The balancer: by /health/ready, and only for what is new. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@posthorn/testing';
import { Balancer } from './balancer.mjs';
import { HttpClient } from './http-client.mjs';

/** A gateway as the balancer sees it. */
class Gateway {
  ready = true;
  port = 0;
  readonly #server: Server;
  /** Lets the answer to `/slow` go, once it was asked for. */
  release: (() => void) | undefined;

  constructor(readonly name: string) {
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  async listen(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.port = (this.#server.address() as AddressInfo).port;
    return this;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }

  #answer({ url }: IncomingMessage, response: ServerResponse): void {
    if (url === '/health/ready') response.writeHead(this.ready ? 200 : 503).end();
    else if (url === '/slow') this.release = () => void response.end(this.name);
    else response.end(this.name);
  }
}

let gateways: Gateway[];
let balancer: Balancer;

beforeEach(async () => {
  gateways = await Promise.all(['a', 'b'].map((name) => new Gateway(name).listen()));
  balancer = new Balancer(gateways);
  await balancer.listen(0);
});
afterEach(async () => {
  await balancer.close();
  for (const gateway of gateways) await gateway.close();
});

/** Who answers, on a connection of its own. */
async function ask(path = '/'): Promise<string> {
  const client = new HttpClient();
  const { text } = await client.send(balancer.url + path, { method: 'GET', headers: {} });
  client.close();
  return text;
}
const askTimes = async (times: number) => {
  const answers = [];
  for (let i = 0; i < times; i++) answers.push(await ask());
  return answers;
};

describe('the balancer', () => {
  it('takes turns', async () => {
    expect(await askTimes(4)).toEqual(['a', 'b', 'a', 'b']);
  });

  it('sends nothing new to who is not ready, and leaves what is under way where it is', async () => {
    const [a] = gateways as [Gateway, Gateway];
    const underWay = ask('/slow');
    await eventually(() => a.release !== undefined);
    a.ready = false;
    await eventually(() => !balancer.serves(a));
    expect(await askTimes(3)).toEqual(['b', 'b', 'b']);
    a.release?.();
    expect(await underWay).toBe('a');
    a.ready = true;
    await eventually(() => balancer.serves(a));
    expect(new Set(await askTimes(2))).toEqual(new Set(['a', 'b']));
  });

  it('tries the other where one has died, before anybody asked it', async () => {
    const [a, b] = gateways as [Gateway, Gateway];
    await a.close();
    expect(await askTimes(2)).toEqual(['b', 'b']);
    await b.close();
    await expect(ask()).rejects.toThrow();
    expect(balancer.refused).toBe(1);
  });
});
