import { describe, expect, it } from '@jest/globals';
import { ProblemError } from '@posthorn/contracts';
import fc from 'fast-check';
import {
  external,
  invitationCancelled,
  invited,
  joined,
  left,
  requested,
  requestRefused,
  type Wanted,
} from './notice.js';

const payload = { author: 'ann', target: 'tom', community: 'chess' };

const aboutChess = {
  subject: { objectType: 'user', id: 'ann' },
  complement: { objectType: 'community', id: 'chess' },
  context: null,
  description: null,
  icon: { objectType: 'icon', id: 'fa-users' },
  interactive: false,
  action: [],
};

describe('a join', () => {
  it('tells the managers, less the author', () => {
    const { notice, membership } = joined({ ...payload, actor: 'user' });
    expect(notice).toEqual({
      content: {
        ...aboutChess,
        category: 'community:join',
        verb: { label: 'ESN_COMMUNITY_JOIN', text: 'has joined' },
      },
      recipients: { community: 'chess', except: 'ann' },
    });
    expect(membership).toEqual({ community: 'chess', user: 'tom', present: true });
  });

  it('by a manager is an accepted request, and tells the new member', () => {
    expect(joined({ ...payload, actor: 'manager' }).notice).toEqual({
      content: {
        ...aboutChess,
        category: 'community:membership:accepted',
        verb: { label: 'ESN_MEMBERSHIP_ACCEPTED', text: 'accepted your request to join' },
      },
      recipients: ['tom'],
    });
  });

  it('tells the managers that the payload names, each once and not the author', () => {
    const managers = [7, '7', { _id: 'max' }, { id: 'ann' }, 'max'];
    expect(joined({ ...payload, managers }).notice?.recipients).toEqual(['7', 'max']);
    expect(joined({ ...payload, managers: [] }).notice?.recipients).toEqual([]);
  });
});

describe('a leave', () => {
  it('ends a membership and tells nobody', () => {
    expect(left(payload)).toEqual({ membership: { community: 'chess', user: 'tom', present: false } });
  });
});

describe('an invite', () => {
  it('asks the target', () => {
    expect(invited(payload)).toEqual({
      invitation: { kind: 'made', community: 'chess', target: 'tom' },
      notice: {
        content: {
          ...aboutChess,
          category: 'community:membership:invite',
          verb: { label: 'ESN_MEMBERSHIP_INVITE', text: 'has invited you in' },
          interactive: true,
        },
        recipients: ['tom'],
      },
    });
  });

  it('is taken back by its cancel', () => {
    expect(invitationCancelled(payload)).toEqual({
      invitation: { kind: 'cancelled', community: 'chess', target: 'tom' },
    });
  });
});

describe('a request', () => {
  it('asks every manager', () => {
    expect(requested(payload)).toEqual({
      notice: {
        content: {
          ...aboutChess,
          category: 'community:membership:request',
          verb: { label: 'ESN_MEMBERSHIP_REQUEST', text: 'requested membership on' },
          interactive: true,
        },
        recipients: { community: 'chess' },
      },
    });
  });

  it('that is refused tells the target', () => {
    expect(requestRefused(payload)).toEqual({
      notice: {
        content: {
          ...aboutChess,
          category: 'community:membership:refused',
          verb: { label: 'ESN_MEMBERSHIP_REFUSED', text: 'declined your request to join' },
        },
        recipients: ['tom'],
      },
    });
  });
});

describe('an external notification', () => {
  it('says what its payload says', () => {
    const { notice } = external({
      author: { _id: 12 },
      target: [{ id: 'tom' }, 'tom', 'tim'],
      action: 'shared',
      object: { objectType: 'file', id: 'report.pdf' },
      context: { objectType: 'project', _id: 'p1' },
      link: 'https://example.org/report.pdf',
      icon: 'fa-file',
      title: 'A report',
      level: 'info',
      data: { pages: [1, 2] },
    });
    expect(notice).toEqual({
      content: {
        subject: { objectType: 'user', id: '12' },
        verb: { label: 'shared', text: 'shared' },
        complement: { objectType: 'file', id: 'report.pdf' },
        context: { objectType: 'project', id: 'p1' },
        description: null,
        icon: { objectType: 'icon', id: 'fa-file' },
        category: 'external',
        interactive: false,
        action: [{ url: 'https://example.org/report.pdf', display: { label: 'ESN_LINK', text: 'link' } }],
        title: 'A report',
        level: 'info',
        data: { pages: [1, 2] },
      },
      recipients: ['tom', 'tim'],
    });
  });

  it('takes plain ids for object and context, and does without what is not there', () => {
    const some = external({ target: 5, action: 'shared', object: 'o1', context: 'c1' });
    expect(some.notice).toMatchObject({
      content: {
        complement: { objectType: 'string', id: 'o1' },
        context: { objectType: 'community', id: 'c1' },
      },
      recipients: ['5'],
    });
    expect(external({ target: 5, action: 'shared' }).notice?.content).toEqual({
      subject: { objectType: 'user', id: '' },
      verb: { label: 'shared', text: 'shared' },
      complement: { objectType: 'string', id: '' },
      context: null,
      description: null,
      icon: null,
      category: 'external',
      interactive: false,
      action: [],
    });
  });
});

describe('whatever ids a payload holds', () => {
  const plain = fc.oneof(fc.string({ unit: 'binary' }), fc.double(), fc.string({ minLength: 250 }));
  const id = fc.oneof(plain, fc.record({ _id: plain }), fc.record({ id: plain }));
  const community = fc.record({ author: id, target: id, community: id });
  const rows: ((payload: never) => Wanted)[] = [
    joined,
    left,
    invited,
    invitationCancelled,
    requested,
    requestRefused,
  ];

  it('there is a notice with recipients that a topic can carry, each once, or a payload that is not valid', () => {
    fc.assert(
      fc.property(community, fc.option(fc.array(id), { nil: undefined }), (ids, managers) => {
        for (const row of rows) {
          try {
            const recipients = row({ ...ids, managers } as never).notice?.recipients ?? [];
            if ('community' in recipients) continue;
            expect(new Set(recipients).size).toBe(recipients.length);
            for (const recipient of recipients) {
              expect(recipient).not.toContain('\0');
              expect(Buffer.byteLength(recipient)).toBeGreaterThan(0);
              expect(Buffer.byteLength(recipient)).toBeLessThanOrEqual(255);
            }
          } catch (error) {
            if (!(error instanceof ProblemError)) throw error;
            expect(error.code).toBe('payload_invalid');
          }
        }
      }),
    );
  });
});
