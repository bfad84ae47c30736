import { describe, expect, it } from '@jest/globals';
import { type Principal, principalOfClaims } from '@posthorn/contracts';
import { Places } from './places.js';

const who = (claims: object): Principal => principalOfClaims({ aud: 'acme', ...claims });
const ann = who({ sub: 'ann' });

describe('the places of a user', () => {
  it('are so many, until one is given back', () => {
    const places = new Places(2, 'sockets');
    const first = places.take(ann);
    places.take(ann);
    expect(() => places.take(ann)).toThrow(
      expect.objectContaining({ code: 'subscription_limit', detail: 'A user may have 2 sockets open' }),
    );
    first();
    first();
    places.take(ann);
    expect(() => places.take(ann)).toThrow('2 sockets');
  });

  it('are its own: of another audience or role it is another', () => {
    const places = new Places(1, 'sockets');
    for (const one of [
      ann,
      who({ sub: 'bob' }),
      who({ sub: 'ann', role: 'service' }),
      who({ aud: 'globex', sub: 'ann' }),
    ]) {
      places.take(one);
      expect(() => places.take(one)).toThrow();
    }
  });

  it('go by the token where it names nobody, and have no limit where that has no id', () => {
    const places = new Places(1, 'sockets');
    places.take(who({ jti: '1' }));
    places.take(who({ jti: '2' }));
    expect(() => places.take(who({ jti: '2' }))).toThrow();
    const room = { event_id: 'e', session_id: 's' };
    for (let i = 0; i < 3; i++) places.take(who({ room }));
  });

  it('are forgotten with the last one', () => {
    const places = new Places(9, 'sockets');
    const back = [ann, ann, who({ sub: 'bob' })].map((one) => places.take(one));
    expect(places.size).toBe(2);
    for (const give of back) give();
    expect(places.size).toBe(0);
  });
});
