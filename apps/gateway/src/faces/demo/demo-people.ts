/** Who is in the demo: the people of a room, and the tokens that a team's own server would give them. */
import { Injectable } from '@nestjs/common';
import {
  type CreateAudienceReply,
  type CreateAudienceRequest,
  type Principal,
  ProblemError,
  REGISTRY_CALLS,
} from '@posthorn/contracts';
import { SignJWT } from 'jose';
import { GatewayCore } from '../../core.js';

/** The audience of all rooms. */
export const AUDIENCE = 'demo';
const EVENT = 'demo';
const PEOPLE = ['ada', 'grace'] as const;
/** 128 random bits: two visitors do not meet by accident. */
const ROOM = /^[0-9a-f]{32}$/;
/** Short, so that a visitor sees tokens being renewed. */
const TOKEN_SECONDS = 180;

export type Person = (typeof PEOPLE)[number];

/** One of the two in one of the rooms: a user of its own, with an inbox of its own. */
export interface Visitor {
  readonly user: Person;
  readonly room: string;
}

/**
 * The visitor that a body names.
 * @throws ProblemError `request_invalid`
 */
export function parseVisitor({ user, room }: Readonly<Record<string, unknown>>): Visitor {
  const errors = [];
  const person = PEOPLE.find((known) => known === user);
  if (!person) errors.push({ path: '/user', message: `must be one of ${PEOPLE.join(', ')}` });
  const named = typeof room === 'string' && ROOM.test(room);
  if (!named) errors.push({ path: '/room', message: 'must be 32 hexadecimal digits' });
  if (!person || !named) throw new ProblemError('request_invalid', 'The body names nobody', { errors });
  return { user: person, room };
}

/**
 * The visitor that a principal is.
 * @throws ProblemError `forbidden` for any other principal
 */
export function visitorOf({ audience, sub, room }: Principal): Visitor {
  const user = PEOPLE.find((person) => room && sub === userId({ user: person, room: room.session_id }));
  if (audience !== AUDIENCE || !room || !user)
    throw new ProblemError('forbidden', 'This is for the demo only');
  return { user, room: room.session_id };
}

/** The other one in the room. */
export function companionOf({ user, room }: Visitor): Visitor {
  return { user: user === 'ada' ? 'grace' : 'ada', room };
}

/** The id of a visitor as a user of the audience. */
export function userId({ user, room }: Visitor): string {
  return `${user}.${room}`;
}

/** Gives visitors their tokens. */
@Injectable()
export class DemoPeople {
  #opened: Promise<void> | undefined;

  constructor(private readonly core: GatewayCore) {}

  /**
   * A JWT for a visitor, good for the room's events and the user's own notifications, for some minutes.
   * @throws ProblemError `unavailable`
   */
  async token(visitor: Visitor): Promise<string> {
    await this.#audience();
    const { jwtSecret = '', jwtIssuer } = this.core.config;
    const events = `room/session/${visitor.room}/*`;
    const token = new SignJWT({
      role: 'user',
      room: { event_id: EVENT, session_id: visitor.room },
      permissions: {
        publish: [events],
        subscribe: [events, 'usernotification:created', 'usernotification:updated'],
      },
    })
      .setProtectedHeader({ alg: 'HS256' })
      .setAudience(AUDIENCE)
      .setSubject(userId(visitor))
      .setIssuedAt()
      .setExpirationTime(`${TOKEN_SECONDS}s`);
    if (jwtIssuer !== undefined) token.setIssuer(jwtIssuer);
    return token.sign(new TextEncoder().encode(jwtSecret));
  }

  /** The audience is made with the first token. */
  #audience(): Promise<void> {
    this.#opened ??= this.core.rpc
      .call<CreateAudienceRequest, CreateAudienceReply>(REGISTRY_CALLS.createAudience, { name: AUDIENCE })
      .then(({ audience }) => this.core.bus.topics.rememberAudience(audience))
      .catch((error: unknown) => {
        this.#opened = undefined;
        throw error;
      });
    return this.#opened;
  }
}
