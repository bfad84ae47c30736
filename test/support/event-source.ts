/** A client of event streams for tests: parses Server-Sent Events, keeps the last id, and can come again. */
import { once } from 'node:events';
import { type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http';
import { Changes } from '@posthorn/testing';

/** An event as a browser would dispatch it. */
export interface StreamEvent {
  readonly name: string;
  readonly data: string;
  /** The last id at that moment. */
  readonly id: string;
}

export interface StreamOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly lastEventId?: string;
}

/** One answer of a gateway: a stream, or a refusal. */
export class EventStreamClient implements AsyncDisposable {
  readonly events: StreamEvent[] = [];
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** As a browser would send it. */
  lastEventId: string;
  retry: number | undefined;
  comments = 0;
  /** What a refusal says. */
  body = '';
  ended = false;
  readonly response: IncomingMessage;
  readonly #request: ClientRequest;
  readonly #changes = new Changes(() => JSON.stringify(this.events.slice(-5)));
  #rest = '';
  #name = '';
  #data: string[] = [];
  #id: string;

  private constructor(call: ClientRequest, response: IncomingMessage, lastEventId: string) {
    this.#request = call;
    this.response = response;
    this.status = response.statusCode ?? 0;
    this.headers = response.headers;
    this.lastEventId = lastEventId;
    this.#id = lastEventId;
    response.setEncoding('utf8');
    response.on('data', (text: string) => {
      this.body += this.status === 200 ? '' : text;
      this.#take(text);
    });
    response.on('error', () => {});
    response.on('close', () => {
      this.ended = true;
      this.#changes.tell();
    });
  }

  /** Resolves once the gateway has answered, and a stream has begun. */
  static async open(
    url: string,
    { headers = {}, lastEventId = '' }: StreamOptions = {},
  ): Promise<EventStreamClient> {
    const call = request(url, {
      agent: false,
      headers: {
        accept: 'text/event-stream',
        connection: 'keep-alive',
        ...(lastEventId === '' ? {} : { 'last-event-id': lastEventId }),
        ...headers,
      },
    });
    call.on('error', () => {});
    call.end();
    const response = await Promise.race([
      once(call, 'response').then(([answer]) => answer as IncomingMessage),
      once(call, 'close').then(() => Promise.reject(new Error('the gateway hung up'))),
    ]);
    const client = new EventStreamClient(call, response, lastEventId);
    const hasBegun = () => client.status !== 200 || client.retry !== undefined || client.ended;
    while (!hasBegun()) await client.#changes.next(Date.now() + 10_000);
    return client;
  }

  /** The data of all events of a name, parsed. */
  // biome-ignore lint/suspicious/noExplicitAny: payloads of every shape
  messages(name: string): any[] {
    return this.events.filter((event) => event.name === name).map(({ data }) => JSON.parse(data));
  }

  /** Waits until so many events have come. */
  async count(n: number, timeout = 20_000): Promise<readonly StreamEvent[]> {
    await this.until(() => this.events.length >= n, timeout);
    return this.events;
  }

  /** Waits until something holds; what is asked again whenever something has come. */
  async until(holds: () => boolean, timeout = 20_000): Promise<void> {
    const deadline = Date.now() + timeout;
    while (!holds()) {
      if (this.ended) throw new Error(`the stream has ended: ${this.status} ${this.body}`);
      await this.#changes.next(deadline);
    }
  }

  /** Waits until the gateway has ended the stream. */
  async end(timeout = 20_000): Promise<void> {
    const deadline = Date.now() + timeout;
    while (!this.ended) await this.#changes.next(deadline);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#request.destroy();
    await this.end();
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) this.#line(line);
    this.#changes.tell();
  }

  #line(line: string): void {
    const [field, value] = split(line);
    if (line === '') this.#dispatch();
    else if (field === '') this.comments++;
    else if (field === 'event') this.#name = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id') this.#id = value;
    else if (field === 'retry') this.retry = Number(value);
    else throw new Error(`no line of an event stream: ${line}`);
  }

  #dispatch(): void {
    this.lastEventId = this.#id;
    if (this.#data.length > 0) {
      this.events.push({ name: this.#name || 'message', data: this.#data.join('\n'), id: this.#id });
    }
    this.#name = '';
    this.#data = [];
  }
}

/** A field and its value: one space after the colon belongs to neither. */
function split(line: string): [field: string, value: string] {
  const colon = line.indexOf(':');
  if (colon < 0) return [line, ''];
  return [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
}

/** Comes again whenever its stream ends, at the next of several gateways, as a browser behind a balancer does. */
export class ReconnectingClient implements AsyncDisposable {
  readonly events: StreamEvent[] = [];
  /** How often it has connected. */
  connections = 0;
  readonly #urls: readonly string[];
  readonly #running: Promise<void>;
  #last = '';
  #current: EventStreamClient | undefined;
  #stopped = false;

  /** @param urls of one stream at several gateways */
  constructor(urls: readonly string[]) {
    this.#urls = urls;
    this.#running = this.#run();
  }

  /** How many events have come, on this connection too. */
  get received(): number {
    return this.events.length + (this.#current?.events.length ?? 0);
  }

  /** Cuts its connection. */
  cut(): void {
    this.#current?.response.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.cut();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        const url = this.#urls[this.connections++ % this.#urls.length]!;
        const stream = await EventStreamClient.open(url, { lastEventId: this.#last });
        this.#current = stream;
        if (this.#stopped) this.cut();
        await stream.end(600_000);
        this.#last = stream.lastEventId;
        this.events.push(...stream.events);
        this.#current = undefined;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }
}
