/** The topics of docs/protocols/inthe-am.md. */
import { Type } from '@sinclair/typebox';
import { defineTopics } from './entry.js';
import { AnyObject, Nullable, OneOf } from './shapes.js';

const Uuid = Type.String({ format: 'uuid' });
const DateTimeOrNull = Nullable(Type.String({ format: 'date-time' }));

const perUser = {
  scopes: ['global'],
  access: 'owner',
  separator: '.',
  parameter: { name: 'username', owner: 'username' },
  subscribers: [],
  source: 'inthe-am',
} as const;
const web = { ...perUser, publishers: ['web'] } as const;
const taskd = { ...perUser, publishers: ['taskd'] } as const;

const taskdClient = {
  username: Type.String(),
  org: Type.String(),
  client: Type.String(),
  ip: Type.String(),
  port: Type.Number(),
};

export const intheAmTopics = defineTopics({
  __general__: {
    scopes: ['global'],
    access: 'platform',
    publishers: ['web'],
    subscribers: [],
    source: 'inthe-am',
    description: 'A public announcement to every user.',
    payload: Type.Object({ title: Type.String(), message: Type.String(), system: Type.Boolean() }),
  },
  personal: {
    ...web,
    description: 'A message to be shown to one user.',
    payload: Type.Object({ username: Type.String(), title: Type.String(), message: Type.String() }),
  },
  local_sync: {
    ...web,
    description: 'The web interface has finished a synchronization with taskd.',
    payload: Type.Object({
      username: Type.String(),
      debounce_id: Type.String(),
      start: Type.String(),
      head: Type.String(),
    }),
  },
  changed_task: {
    ...web,
    description: 'One task was changed; an operation on many tasks gives one event for each.',
    payload: Type.Object({
      username: Type.String(),
      start: Type.String(),
      head: Type.String(),
      task_id: Uuid,
      task_data: AnyObject,
      changes: AnyObject,
    }),
  },
  log_message: {
    ...web,
    description: "A line was written to the log of a user's task store, or counted again.",
    payload: Type.Object({
      username: Type.String(),
      md5hash: Type.String(),
      last_seen: DateTimeOrNull,
      created: DateTimeOrNull,
      error: Type.Boolean(),
      silent: Type.Boolean(),
      message: Type.String(),
      count: Type.Number(),
    }),
  },
  incoming_mail: {
    ...web,
    description: 'A mail came in for a user and was accepted as a task or rejected.',
    payload: Type.Object(
      {
        username: Type.String(),
        message_id: Type.Number(),
        subject: Type.String(),
        accepted: Type.Boolean(),
        rejection_reason: Type.Optional(OneOf(['passlist', 'subject'])),
        task_id: Type.Optional(Uuid),
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
    description: "Trello reported a change that may concern a user's task list.",
    payload: Type.Object({
      action: Type.Object({ id: Type.String(), type: Type.String() }),
      model: Type.Object({ id: Type.String() }),
    }),
  },
  sync: {
    ...taskd,
    description: 'A client has finished a synchronization with taskd.',
    payload: Type.Object({
      action: Type.Literal('sync'),
      ...taskdClient,
      client_key: Type.String(),
      record_count: Type.Number(),
      branch_point: Type.String(),
      branch_record_count: Type.Number(),
      delta_count: Type.Number(),
      stored_count: Type.Number(),
      merged_count: Type.Number(),
      service_duration: Type.Number(),
    }),
  },
  'taskd.certificate': {
    ...taskd,
    description: "Taskd has decided whether it accepts a user's own certificate.",
    payload: Type.Object({
      ...taskdClient,
      fingerprint: Type.String(),
      certificate_recognized: Type.Boolean(),
      certificate_accepted: Type.Boolean(),
    }),
  },
});
