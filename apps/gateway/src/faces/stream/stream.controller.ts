/** `GET` and `POST /v1/stream`, and `GET /status/<key>` (docs/protocols/inthe-am.md, "Event stream"). */
import { Body, Controller, Get, Post, Req, Res } from '@nestjs/common';
import { asProblem, type Cursor, ProblemError, parseCursor } from '@posthorn/contracts';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { GatewayCore } from '../../core.js';
import { callerOf } from './credentials.js';
import { framesOf } from './frame-request.js';
import { OpenStreams, STREAM_HEADERS, type StreamRequest } from './open-streams.js';
import { STATUS_TOPICS, StatusVoice, splitId } from './status-voice.js';
import { interestByDefault, interestIn, interestInOwn } from './topics.js';
import { StreamVoice } from './voice.js';

type Query = Readonly<Record<string, string | readonly string[] | undefined>>;

/** How soon a client comes again that was sent away, in seconds, where nobody says. */
const AWAY = 2;

@Controller()
export class StreamController {
  constructor(
    private readonly core: GatewayCore,
    private readonly streams: OpenStreams,
  ) {}

  @Get('v1/stream')
  stream(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    return this.#answer(request, reply, async () => {
      const query = request.query as Query;
      const principal = await callerOf(this.core, request, textOf(query, 'token'));
      const names = topicsOf(query);
      const interest = names
        ? interestIn(names, principal, this.core.config.subscriptionLimit)
        : interestByDefault(principal);
      const last = lastEventId(request);
      const since = beginning(last, textOf(query, 'since'));
      return { principal, interest, since, voice: new StreamVoice(interest.names) };
    });
  }

  /** What a socket brings down, for whom no WebSocket gets through. It is no `EventSource`: errors are told as such. */
  @Post('v1/stream')
  async frames(
    @Body() body: unknown,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const principal = await callerOf(this.core, request, undefined);
    const frames = framesOf(body, principal, this.core.config.subscriptionLimit);
    this.streams.openFrames(principal, frames, reply);
  }

  /** A key is longer than a parameter may be. */
  @Get('status/*')
  status(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    return this.#answer(request, reply, async () => {
      const query = request.query as Query;
      const key = (request.params as Readonly<Record<string, string>>)['*'];
      // Its key counts, whatever else the request carries.
      const { authorization: _, ...headers } = request.headers;
      const principal = await callerOf(this.core, { headers }, key);
      const last = lastEventId(request);
      const since = textOf(query, 'since');
      const { head } = splitId(last ?? since ?? '');
      return {
        principal,
        interest: interestInOwn(STATUS_TOPICS, principal),
        since: beginning(last && splitId(last).place, since && splitId(since).place),
        voice: new StatusVoice(head ?? textOf(query, 'head')),
      };
    });
  }

  async #answer(
    request: FastifyRequest,
    reply: FastifyReply,
    read: () => Promise<StreamRequest>,
  ): Promise<void> {
    try {
      const stream = await read();
      if (request.method === 'HEAD') void reply.headers(STREAM_HEADERS).send();
      else await this.streams.open(stream, reply);
    } catch (error) {
      const problem = asProblem(error);
      const comesAgain =
        problem.code === 'unavailable' && request.headers.accept?.includes('text/event-stream');
      if (!comesAgain || request.method === 'HEAD') throw error;
      this.core.metrics.errors.unavailable.inc();
      this.streams.sendAway(reply, problem.retryAfter ?? AWAY);
    }
  }
}

/** What a browser says when it comes again. */
function lastEventId({ headers }: FastifyRequest): string | undefined {
  const id = headers['last-event-id'];
  return typeof id === 'string' && id !== '' ? id : undefined;
}

/**
 * Where a client begins. What a browser says counts before what the page does, and may be any text: what is no cursor
 * is one of no stream.
 * @throws ProblemError `request_invalid` where the page says what is no cursor
 */
function beginning(last: string | undefined, since: string | undefined): Cursor | undefined {
  if (last !== undefined) return parseCursor(last) ?? { epoch: '', sequence: 0 };
  if (since === undefined) return undefined;
  const cursor = parseCursor(since);
  if (cursor) return cursor;
  throw invalid('since', 'must be a position or cursor as the server gave it');
}

/** The names of `topic`, as they are, and those of `topics`, by JSON pointers; undefined where there is neither. */
function topicsOf({ topic = [], topics = [] }: Query): ReadonlyMap<string, string> | undefined {
  const lists = [topics].flat().flatMap((names) => names.split(','));
  const names = new Map([
    ...[topic].flat().map((name, i) => [`/topic/${i}`, name] as const),
    ...lists.map((name, i) => [`/topics/${i}`, name] as const),
  ]);
  return names.size > 0 ? names : undefined;
}

/** @throws ProblemError `request_invalid` */
function textOf(query: Query, name: string): string | undefined {
  const value = query[name];
  if (value === undefined || typeof value === 'string') return value;
  throw invalid(name, 'must be given once');
}

function invalid(name: string, message: string): ProblemError {
  return new ProblemError('request_invalid', `${name} ${message}`, {
    errors: [{ path: `/${name}`, message }],
  });
}
