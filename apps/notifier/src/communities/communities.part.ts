import type { JetStreamManager } from '@nats-io/jetstream';
import { ProblemError, STREAMS } from '@posthorn/contracts';
import type { Part, Parts } from '../parts.js';
import { CommunitiesController } from './communities.controller.js';
import { Communities } from './communities.js';

/**
 * Who manages and who belongs to a community.
 * @param managersSet told when managers were set: events may wait for them
 */
export function openCommunities({ source, bus }: Parts, managersSet: () => void): Part {
  const communities = new Communities({ source, lastEvent: () => lastEvent(bus.jsm), managersSet });
  return {
    controllers: [CommunitiesController],
    providers: [{ provide: Communities, useValue: communities }],
  };
}

/** When the stream stored its last local event, in nanoseconds since 1970; 0 where it never stored one. */
async function lastEvent(jsm: JetStreamManager): Promise<bigint> {
  try {
    const { state } = await jsm.streams.info(STREAMS.local.name);
    return nanoseconds(state.last_ts);
  } catch (cause) {
    throw new ProblemError('unavailable', 'The event store does not answer', { cause });
  }
}

/** RFC 3339 time with up to nine digits after the second. */
export function nanoseconds(time: string): bigint {
  const [, seconds = '', fraction = '', zone = ''] = /^([^.Z+]+)(?:\.(\d+))?(.*)$/.exec(time) ?? [];
  const whole = BigInt(Date.parse(`${seconds}${zone}`)) * 1_000_000n;
  const nanos = whole + BigInt(fraction.padEnd(9, '0').slice(0, 9));
  return nanos > 0n ? nanos : 0n;
}
