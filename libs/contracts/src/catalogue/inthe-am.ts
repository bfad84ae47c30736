/** The topics of docs/protocols/inthe-am.md. */
import { Type } from '@sinclair/typebox';
import { defineTopics } from './entry.js';
import { AnyObject, described, Nullable, OneOf } from './shapes.js';

const Uuid = Type.String({ format: 'uuid' });
const DateTimeOrNull = Nullable(Type.String({ format: 'date-time' }));

const perUser = {
  scopes: ['global'],
  access: 'owner',
  separator: '.',
  parameter: { name: 'username', owner: 'username', repeated: true },
  subscribers: [],
  source: 'inthe-am',
} as const;
const web = { ...perUser, publishers: ['web'] } as const;
const taskd = { ...perUser, publishers: ['taskd'] } as const;

/** Must be the one in the topic's name. */
const Username = Type.String({ description: "The user, as in the topic's name" });
const start = Type.String({ description: 'Commit of the task store before' });
const head = Type.String({ description: 'Commit of the task store after' });

const taskdClient = {
  username: Username,
  org: Type.String({ description: "The user's organization in taskd" }),
  client: Type.String({ description: 'Program and version' }),
  ip: Type.String({ description: 'Where the client connected from' }),
  port: Type.Number({ description: 'Its port there' }),
};

export const intheAmTopics = defineTopics({
  __general__: {
    scopes: ['global'],
    access: 'platform',
    publishers: ['web'],
    subscribers: [],
    source: 'inthe-am',
    description: 'A public announcement to every user.',
    payload: Type.Object({
      title: Type.String(),
      message: Type.String({ description: 'What is announced' }),
      system: Type.Boolean({ description: 'Whether it comes from the system itself' }),
    }),
  },
  personal: {
    ...web,
    description: 'A message to be shown to one user.',
    payload: Type.Object({
      username: Username,
      title: Type.String(),
      message: Type.String({ description: 'What to show' }),
    }),
  },
  local_sync: {
    ...web,
    description: 'The web interface has finished a synchronization with taskd.',
    payload: Type.Object({
      username: Username,
      debounce_id: Type.String({ description: 'Events with the same one count as one' }),
      start,
      head,
    }),
  },
  changed_task: {
    ...web,
    description: 'One task was changed; an operation on many tasks gives one event for each.',
    payload: Type.Object({
      username: Username,
      start,
      head,
      task_id: Uuid,
      task_data: described(AnyObject, 'The task as it is now'),
      changes: described(AnyObject, 'By property: the value before and the value after'),
    }),
  },
  log_message: {
    ...web,
    description: "A line was written to the log of a user's task store, or counted again.",
    payload: Type.Object({
      username: Username,
      md5hash: Type.String({ description: 'The same for the same line' }),
      last_seen: described(DateTimeOrNull, 'Null before the entry is saved'),
      created: described(DateTimeOrNull, 'Null before the entry is saved'),
      error: Type.Boolean({ description: 'Whether something went wrong' }),
      silent: Type.Boolean({ description: 'Whether nobody is to be told' }),
      message: Type.String({ description: 'The line' }),
      count: Type.Number({ description: 'How often it was written' }),
    }),
  },
  incoming_mail: {
    ...web,
    description: 'A mail came in for a user and was accepted as a task or rejected.',
    payload: Type.Object(
      {
        username: Username,
        message_id: Type.Number({ description: 'The stored mail' }),
        subject: Type.String({ description: 'Its subject line' }),
        accepted: Type.Boolean({ description: 'Whether it has become a task' }),
        rejection_reason: Type.Optional(
          described(OneOf(['passlist', 'subject']), 'Only of a mail that was not accepted'),
        ),
        task_id: Type.Optional(described(Uuid, 'The task that it has become')),
      },
      {
        if: { properties: { accepted: { const: true } } },
        // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
        then: { properties: { rejection_reason: false } },
      },
    ),
  },
  incoming_trello_change: {
    ...web,
    // Trello's words, in which there is no user.
    parameter: { name: 'username', owner: 'username' },
    description: "Trello reported a change that may concern a user's task list.",
    payload: Type.Object({
      action: Type.Object(
        { id: Type.String(), type: Type.String() },
        { description: "What happened, in Trello's words" },
      ),
      model: Type.Object({ id: Type.String() }, { description: 'To what: a board or a list' }),
    }),
  },
  sync: {
    ...taskd,
    description: 'A client has finished a synchronization with taskd.',
    payload: Type.Object({
      action: Type.Literal('sync'),
      ...taskdClient,
      client_key: Type.String({ description: 'Where the client stood: the key of its last synchronization' }),
      record_count: Type.Number({ description: 'Records in the store' }),
      branch_point: Type.String({ description: 'The record from which the client went on by itself' }),
      branch_record_count: Type.Number({ description: 'Records since then' }),
      delta_count: Type.Number({ description: 'Changes that the client sent' }),
      stored_count: Type.Number({ description: 'Changes that were stored' }),
      merged_count: Type.Number({ description: 'Changes that had to be merged' }),
      service_duration: Type.Number({ description: 'Seconds that it took' }),
    }),
  },
  'taskd.certificate': {
    ...taskd,
    description: "Taskd has decided whether it accepts a user's own certificate.",
    payload: Type.Object({
      ...taskdClient,
      fingerprint: Type.String({ description: 'Of the certificate' }),
      certificate_recognized: Type.Boolean({ description: 'Whether it is known to be of this user' }),
      certificate_accepted: Type.Boolean({ description: 'Whether the client may go on with it' }),
    }),
  },
});
