import { describe, expect, it } from '@jest/globals';
import { notificationChannel, parseNotificationMessage } from './notification-message.js';
import type { ProblemError } from './problem.js';

const findings = (request: object) => {
  try {
    parseNotificationMessage(request);
    return [];
  } catch (error) {
    const { code, errors } = error as ProblemError;
    expect(code).toBe('request_invalid');
    return errors?.map(({ path }) => path);
  }
};

describe('a notification', () => {
  it('has type and kind, no body and priority 1 unless it says more', () => {
    const kind = { type: 'notification', kind: 'notification' };
    expect(parseNotificationMessage({ title: 'Done' })).toEqual({
      message: { ...kind, title: 'Done', body: null, priority: 1 },
      user: undefined,
      client: undefined,
    });
    expect(
      parseNotificationMessage({ title: 'Done', body: 'a\n<b>', priority: 3, user: 7, client: 'c' }),
    ).toEqual({
      message: { ...kind, title: 'Done', body: 'a\n<b>', priority: 3 },
      user: '7',
      client: 'c',
    });
  });

  it('has a title of one line, 1 to 200 characters', () => {
    for (const title of ['x', 'x'.repeat(200), '😀'.repeat(200), '<b>'])
      expect(findings({ title })).toEqual([]);
    for (const title of [
      '',
      'x'.repeat(201),
      'a\nb',
      'a\rb',
      'a\u2028b',
      'a\0',
      '\ud800',
      5,
      null,
      ['a'],
      undefined,
    ])
      expect([title, findings({ title })]).toEqual([title, ['/title']]);
  });

  it('has a body that is text or null', () => {
    for (const body of [undefined, null, '', 'a\nb']) expect(findings({ title: 'x', body })).toEqual([]);
    for (const body of [1, {}, ['a'], false, '\udc00'])
      expect([body, findings({ title: 'x', body })]).toEqual([body, ['/body']]);
  });

  it('has a priority of 0 to 3', () => {
    for (const priority of [0, 1, 2, 3, undefined]) expect(findings({ title: 'x', priority })).toEqual([]);
    for (const priority of [-1, 4, 1.5, '1', null, Number.NaN, true])
      expect([priority, findings({ title: 'x', priority })]).toEqual([priority, ['/priority']]);
  });

  it('names user and client by numbers or texts; null counts as left out', () => {
    for (const id of [1, 0, -5, 'a', 'a.b:c', null, undefined])
      expect(findings({ title: 'x', user: id, client: id })).toEqual([]);
    for (const id of ['', 1.5, Number.NaN, {}, [1], true, 'x'.repeat(256), 'é'.repeat(128), 'a\0'])
      expect([id, findings({ title: 'x', user: id, client: id })]).toEqual([id, ['/user', '/client']]);
  });

  it('is told all that is wrong with it at once', () => {
    expect(findings({ body: 1, priority: 9, user: {} })).toEqual(['/title', '/body', '/priority', '/user']);
  });

  it('goes to the client, else the user, else the calling client, else the current user', () => {
    const current = { user: 'me', client: 'here' };
    expect(notificationChannel({ user: '7', client: 'c' }, current)).toBe('client:c');
    expect(notificationChannel({ user: '7' }, current)).toBe('user:7');
    expect(notificationChannel({}, current)).toBe('client:here');
    expect(notificationChannel({}, { user: 'me' })).toBe('user:me');
    expect(() => notificationChannel({}, {})).toThrow(expect.objectContaining({ code: 'request_invalid' }));
  });
});
