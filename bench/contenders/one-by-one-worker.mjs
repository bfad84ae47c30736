/**
 * The notification worker as one writes it by hand: a statement, a publish and an acknowledgement for each
 * notification, many events at once. It has no inboxes, withdraws nothing and checks no schema. Managers come
 * from the environment, the rules of who gets what from the worker that it is compared with.
 */
import { randomUUID } from 'node:crypto';
import { jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import pg from 'pg';
import { built } from '../../tools/checkout.mjs';
import { managersOf } from '../community-events.mjs';

const AT_ONCE = 256;
/** @type {typeof import('../../apps/notifier/src/worker/notice.js')} */
const notice = await built('apps/notifier/src/worker/notice.js');
const rules = {
  'community.join': notice.joined,
  'community.membership.invite': notice.invited,
  'community.membership.request': notice.requested,
  'community.membership.request.refuse': notice.requestRefused,
  'notification.external': notice.external,
};

const { NATS_URL, DATABASE_URL, CONSUMER = '' } = process.env;
const connection = await connect({ servers: NATS_URL });
const js = jetstream(connection);
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 });

const consumer = await js.consumers.get('PH_LOCAL', CONSUMER);
for await (const message of await consumer.consume({ max_messages: AT_ONCE })) void handle(message);

/** @param {import('@nats-io/jetstream').JsMsg} message */
async function handle(message) {
  const [, audience, , , , ...segments] = message.subject.split('.');
  const rule = rules[/** @type {keyof typeof rules} */ (segments.join('.'))];
  const wanted = rule?.(message.json());
  const recipients = wanted?.notice?.recipients ?? [];
  const targets = 'community' in recipients ? (managersOf.get(recipients.community) ?? []) : recipients;
  await Promise.all(
    targets.map(async (target) => {
      const id = randomUUID();
      const content = JSON.stringify(wanted?.notice?.content);
      await pool.query(
        'INSERT INTO one_by_one VALUES ($1, $2, $3, $4, $5) ON CONFLICT (audience, event_id, target) DO NOTHING',
        [id, audience, String(message.seq), target, content],
      );
      const subject = `ph.${audience}.global.${target}.usernotification.created`;
      await js.publish(subject, content, { msgID: id });
    }),
  );
  message.ack();
}
