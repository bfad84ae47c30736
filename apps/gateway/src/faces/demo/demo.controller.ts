/** The page, and the few calls that a team's own server would have beside it. */
import type { IncomingHttpHeaders } from 'node:http';
import { Body, Controller, Get, Headers, HttpCode, Ip, Param, Post, Res, UseGuards } from '@nestjs/common';
import { type Principal, ProblemError, parseTopic } from '@posthorn/contracts';
import type { FastifyReply } from 'fastify';
import { authorOf } from '../../author.js';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Buckets } from '../../http/buckets.js';
import { Caller, CallerGuard } from '../../http/caller.js';
import { networkOf } from '../../http/network.js';
import { isSelf } from '../../http/origins.js';
import { idempotencyKeyOf } from '../../http/publish-headers.js';
import { tooFast } from '../../session/limits.js';
import { DemoFiles } from './demo-files.js';
import { AUDIENCE, companionOf, DemoPeople, parseVisitor, userId, visitorOf } from './demo-people.js';

/** The server behind the page, as the bus knows it. */
const SERVER: Principal = { audience: AUDIENCE, sub: 'demo-server', username: null, role: 'service' };
const INVITE = parseTopic('community:membership:invite');
const COMMUNITY = 'Reading club';

@Controller('demo')
export class DemoController {
  /** Of an address. A page takes two tokens, and two more in each of their lives. */
  readonly #tokens = new Buckets(2, 40);
  /** Of a visitor. */
  readonly #invitations = new Buckets(1, 5);

  constructor(
    private readonly core: GatewayCore,
    private readonly files: DemoFiles,
    private readonly people: DemoPeople,
  ) {}

  @Get()
  page(@Headers('if-none-match') known: string | undefined, @Res() reply: FastifyReply): void {
    this.file('index.html', known, reply);
  }

  @Get(':file')
  file(
    @Param('file') name: string,
    @Headers('if-none-match') known: string | undefined,
    @Res() reply: FastifyReply,
  ): void {
    const file = this.files.file(name);
    if (!file) throw new ProblemError('route_not_found', 'The demo has no such file');
    reply.headers(file.headers);
    if (known === file.headers.etag) reply.code(304).send();
    else reply.send(file.body);
  }

  /** `{user, room}`: a token for the page that asks. */
  @Post('token')
  @HttpCode(200)
  async token(
    @Body() body: unknown,
    @Ip() address: string,
    @Headers() headers: IncomingHttpHeaders,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ token: string }> {
    // Whatever ALLOWED_ORIGINS says: other pages have no business here.
    if (!isOwnPage(headers)) {
      throw new ProblemError('forbidden', 'Tokens of the demo are for its own page');
    }
    take(this.#tokens, networkOf(address));
    const visitor = parseVisitor(objectBody(body));
    reply.header('cache-control', 'no-store');
    return { token: await this.people.token(visitor) };
  }

  /** Invites the other one in the caller's room, by the event that any service would publish. */
  @Post('invitations')
  @UseGuards(CallerGuard)
  async invite(
    @Caller() principal: Principal,
    @Headers('idempotency-key') idempotencyKey: string | undefined,
  ): Promise<{ id: string }> {
    const author = visitorOf(principal);
    const key = idempotencyKeyOf(idempotencyKey);
    take(this.#invitations, userId(author));
    const { id } = await this.core.publisher.publish({
      ...authorOf(SERVER),
      topic: INVITE,
      scope: 'local',
      message: { author: userId(author), target: userId(companionOf(author)), community: COMMUNITY },
      ...(key === undefined ? {} : { idempotencyKey: key }),
    });
    return { id };
  }
}

/** Browsers say it outright where the page came over https or from this machine; else they tell its origin. */
function isOwnPage({ 'sec-fetch-site': site, origin, host }: IncomingHttpHeaders): boolean {
  if (site !== undefined) return site === 'same-origin';
  return origin === undefined || isSelf(origin, host);
}

function take(buckets: Buckets, key: string): void {
  const seconds = buckets.take(key, performance.now());
  if (seconds > 0) throw tooFast(seconds);
}
