import { describe, expect, it } from '@jest/globals';
import { checkForCatalogue } from '../schema.js';
import { encodePath } from '../subject.js';
import { CATALOGUE, type PayloadOf, type TopicName } from './index.js';

const entries = [...CATALOGUE.values()];
const segments = (name: string): string[] => name.split(/[:./]/);
const names = (source: string): string[] => entries.filter((e) => e.source === source).map((e) => e.name);
/** Findings for a payload, which the compiler holds against the topic's type where `payload` is typed. */
const check = (name: TopicName, payload: unknown) => checkForCatalogue(name)(payload);
const fits = <N extends TopicName>(name: N, payload: PayloadOf<N>) =>
  expect(check(name, payload)).toEqual([]);
const misses = (name: TopicName, payload: unknown, ...paths: string[]) =>
  expect(check(name, payload).map(({ path }) => path)).toEqual(paths);

describe('the catalogue', () => {
  it('has every topic of the documents, once', () => {
    expect(names('esn').sort()).toEqual(
      [
        ...['init', 'process', 'finalize'].flatMap((step) => [
          `invitation:${step}:success`,
          `invitation:${step}:failure`,
        ]),
        'login:success',
        'login:failure',
        'mongodb:configurationAvailable',
        'mongodb:connectionAvailable',
        'webserver:mongosessionstoreEnabled',
        'redis:configurationAvailable',
        'globalpubsub:config',
        'domain:invitations:sent',
        'message:stored',
        'message:comment',
        'message:activity',
        'notification:external',
        'community:join',
        'community:leave',
        'community:membership:invite',
        'community:membership:request',
        'community:membership:invitation:cancel',
        'community:membership:invitation:decline',
        'community:membership:request:refuse',
        'community:membership:request:cancel',
        'usernotification:created',
        'usernotification:updated',
      ].sort(),
    );
    expect(names('inthe-am')).toEqual([
      '__general__',
      'personal',
      'local_sync',
      'changed_task',
      'log_message',
      'incoming_mail',
      'incoming_trello_change',
      'sync',
      'taskd.certificate',
    ]);
    expect(names('tryton')).toEqual(['user', 'client']);
    expect(names('courier')).toEqual(['__broadcast__']);
  });

  it('gives each topic a subject of its own, for every name and alias', () => {
    const all = entries.flatMap(({ name, aliases = [] }) => [name, ...aliases]);
    const paths = all.map((name) => encodePath(null, segments(name)));
    expect(new Set(paths).size).toBe(all.length);
  });

  it('offers to end users what is global only', () => {
    for (const { name, scopes, access } of entries) {
      expect(scopes.length).toBeGreaterThan(0);
      if (access !== 'platform') expect([name, scopes]).toEqual([name, ['global']]);
    }
  });

  it('has a parameter where a topic belongs to somebody or is secret, and only there', () => {
    for (const { name, access, parameter, separator } of entries) {
      expect([name, parameter?.owner !== undefined]).toEqual([name, access === 'owner']);
      expect([name, parameter?.secret === true]).toEqual([name, access === 'secret']);
      const written = parameter !== undefined && !parameter.hidden;
      expect([name, separator !== undefined]).toEqual([name, written]);
    }
  });

  it('describes each topic in one sentence of its own', () => {
    const descriptions = entries.map(({ description }) => description);
    for (const description of descriptions) expect(description).toMatch(/^[A-Z][^\n]{10,}\.$/);
    expect(new Set(descriptions).size).toBe(descriptions.length);
  });

  it('refuses to check what it does not have', () => {
    expect(() => checkForCatalogue('constructor')).toThrow(RangeError);
  });
});

describe('payloads of ESN', () => {
  const member = { author: 'alice', target: 'bob', community: 'c1' };

  it('name author, target and community, each an id in any form', () => {
    fits('community:join', member);
    fits('community:join', { author: 1, target: { _id: 'b' }, community: { id: 2 }, actor: 'manager' });
    fits('community:leave', { ...member, managers: ['m', { _id: 1 }] });
    misses('community:join', {}, '/author', '/target', '/community');
    misses('community:join', { ...member, author: '', actor: 1 }, '/author', '/actor');
    misses('community:leave', { ...member, managers: ['m', null] }, '/managers/1');
  });

  it('of memberships may hold the membership and anything else', () => {
    for (const step of [
      'invitation:cancel',
      'invitation:decline',
      'request:refuse',
      'request:cancel',
    ] as const) {
      fits(`community:membership:${step}`, { ...member, membership: { user: 'bob' } });
      fits(`community:membership:${step}`, member);
      expect(check(`community:membership:${step}`, { ...member, more: null })).toEqual([]);
      misses(`community:membership:${step}`, { ...member, membership: 'x' }, '/membership');
    }
  });

  it('of a message activity have the long form or the short one', () => {
    fits('message:activity', {
      verb: 'post',
      language: 'en',
      published: 1_700_000_000_000,
      actor: { objectType: 'user', _id: 123, image: 987, displayName: 'Awesome User' },
      object: { objectType: 'whatsup', _id: 456 },
      target: [{ objectType: 'user', _id: 798 }],
    });
    fits('message:activity', {
      source: 'a',
      targets: [],
      message: { _id: 'm' },
      date: '2026-01-01',
      verb: 'post',
    });
    for (const neither of [
      {},
      { verb: 'post', actor: 'a', targets: [] },
      { verb: '', actor: 1, object: 2, target: [] },
    ]) {
      expect(check('message:activity', neither).length).toBeGreaterThan(0);
    }
  });

  it('of a comment say to what it replies; a stored message is any object', () => {
    expect(check('message:comment', { inReplyTo: { _id: 1 } })).toEqual([]);
    misses('message:comment', { _id: 1 }, '/inReplyTo');
    fits('message:stored', {});
    misses('message:stored', [], '');
  });

  it('of an external notification have one target or several, and an action', () => {
    fits('notification:external', { target: 'bob', action: 'shared' });
    fits('notification:external', {
      target: ['bob', { id: 7 }],
      action: 'shared',
      author: 'alice',
      object: { objectType: 'file', id: 'f' },
      context: 'c1',
      link: '/files/f',
      icon: 'fa-file',
      title: 'A file',
      level: 'info',
      data: [1],
    });
    misses('notification:external', { target: [], action: 'x' }, '/target');
    misses('notification:external', { action: '' }, '/target', '/action');
  });

  it('of failures hold the invitation and the error', () => {
    fits('invitation:init:failure', { invitation: { uuid: 'u' }, error: 'down' });
    fits('invitation:init:success', { uuid: 'u' });
    misses('invitation:process:failure', { invitation: {} }, '/error');
    fits('domain:invitations:sent', { user: 'u', domain: { _id: 'd' }, emails: ['a@b.c'] });
    misses('domain:invitations:sent', { user: 'u', domain: 'd', emails: 'a@b.c' }, '/emails');
  });

  const notification: PayloadOf<'usernotification:created'> = {
    id: '0188f2b0-1234-7abc-8def-0123456789ab',
    subject: { objectType: 'user', id: 'alice' },
    verb: { label: 'ESN_COMMUNITY_JOIN', text: 'has joined' },
    complement: { objectType: 'community', id: 'c1' },
    context: null,
    description: null,
    icon: { objectType: 'icon', id: 'fa-users' },
    category: 'community:join',
    interactive: false,
    action: [{ url: '/c1', display: { label: 'ESN_LINK', text: 'link' } }],
    target: 'bob',
    read: false,
    acknowledged: false,
    withdrawn: false,
    timestamps: { creation: '2026-11-01T12:00:00.000Z' },
  };

  it('of a user notification are complete, and of an update say how the inbox stands', () => {
    fits('usernotification:created', notification);
    fits('usernotification:created', { ...notification, title: 't', level: 'info', data: null });
    misses('usernotification:created', { ...notification, target: ['bob'], read: 'no' }, '/target', '/read');
    fits('usernotification:updated', { target: 'bob', notification, unread_count: 0, version: 3 });
    fits('usernotification:updated', { target: 'bob', ids: ['a', 'b'], unread_count: 2, version: 4 });
    misses(
      'usernotification:updated',
      { target: 'bob', unread_count: -1, version: 0.5 },
      '/unread_count',
      '/version',
    );
  });
});

describe('payloads of Inthe.AM', () => {
  it('are typed as documented and may hold more', () => {
    fits('__general__', { title: 't', message: 'm', system: true });
    expect(check('personal', { username: 'alice', title: 't', message: 'm', type: 'toast' })).toEqual([]);
    misses('personal', { title: 't', message: 1 }, '/username', '/message');
    fits('incoming_trello_change', { action: { id: 'a', type: 'updateCard' }, model: { id: 'm' } });
    fits('local_sync', { username: 'alice', debounce_id: 'd', start: 'sha1', head: 'sha2' });
  });

  it('of a changed task hold changes of any kind', () => {
    const task = {
      username: 'alice',
      start: 'a',
      head: 'b',
      task_id: '0188f2b0-1234-7abc-8def-0123456789ab',
      task_data: {},
    };
    fits('changed_task', { ...task, changes: { due: [null, '2026'], tags: ['a'], n: 1 } });
    misses('changed_task', { ...task, task_id: 'one', changes: [] }, '/task_id', '/changes');
  });

  it('of a log entry may lack dates until it is saved', () => {
    const entry = { username: 'alice', md5hash: 'h', error: false, silent: false, message: 'm', count: 1 };
    fits('log_message', { ...entry, last_seen: '2026-11-01T12:00:00.123456+00:00', created: null });
    expect(check('log_message', { ...entry, last_seen: 'yesterday', created: null }).length).toBeGreaterThan(
      0,
    );
  });

  it('of a mail have a reason for rejection only when it was not accepted', () => {
    const mail = { username: 'alice', message_id: 5, subject: 's' };
    fits('incoming_mail', { ...mail, accepted: true, task_id: '0188f2b0-1234-7abc-8def-0123456789ab' });
    fits('incoming_mail', { ...mail, accepted: false, rejection_reason: 'passlist' });
    misses('incoming_mail', { ...mail, accepted: true, rejection_reason: 'subject' }, '/rejection_reason');
    misses('incoming_mail', { ...mail, accepted: false, rejection_reason: 'spam' }, '/rejection_reason');
  });

  it('of taskd count in numbers', () => {
    const client = { username: 'alice', org: 'o', client: 'task 2.6', ip: '10.0.0.1', port: 53589 };
    const counts = {
      record_count: 1,
      branch_record_count: 0,
      delta_count: 1,
      stored_count: 1,
      merged_count: 0,
    };
    const sync = {
      action: 'sync',
      ...client,
      client_key: 'k',
      branch_point: 'b',
      ...counts,
      service_duration: 0.2,
    } as const;
    fits('sync', sync);
    misses('sync', { ...sync, action: 'pull', port: '53589' }, '/action', '/port');
    fits('taskd.certificate', {
      ...client,
      fingerprint: 'f',
      certificate_recognized: true,
      certificate_accepted: false,
    });
  });
});

describe('payloads of the bus and of broadcasts', () => {
  it('are any objects', () => {
    for (const name of ['user', 'client', '__broadcast__'] as const) {
      fits(name, { any: ['thing'] });
      for (const value of [null, [], 'text', 1]) misses(name, value, '');
    }
  });
});
