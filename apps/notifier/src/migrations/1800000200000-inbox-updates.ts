import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What users are yet to be told of their inboxes, and inboxes read by what is read. */
export class InboxUpdates1800000200000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    // No reference to the notifications: an update is told even where retention has removed what it is about.
    await runner.query(`
      CREATE TABLE inbox_update (
        id uuid PRIMARY KEY,
        audience text COLLATE "C" NOT NULL,
        user_id text COLLATE "C" NOT NULL,
        version bigint NOT NULL,
        message json NOT NULL,
        untold uuid[] NOT NULL,
        traceparent text,
        recorded_at timestamptz NOT NULL DEFAULT now()
      )`);
    await runner.query(`
      INSERT INTO inbox_update (id, audience, user_id, version, message, untold)
      SELECT w.id, w.audience, n.target, (w.message ->> 'version')::bigint, w.message,
             CASE WHEN n.emitted_at IS NULL THEN ARRAY[n.id] ELSE '{}' END
      FROM withdrawal w JOIN notification n ON n.id = w.notification_id`);
    await runner.query(`DROP TABLE withdrawal`);
    // One index for all three lists: of the read, of the unread, and of both, which merges the two.
    await runner.query(`DROP INDEX notification_inbox`);
    await runner.query(`
      CREATE INDEX notification_inbox ON notification (audience, target, read, ordinal DESC, id DESC)
      WHERE NOT acknowledged AND NOT withdrawn`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP INDEX notification_inbox`);
    await runner.query(`
      CREATE INDEX notification_inbox ON notification (audience, target, ordinal DESC, id DESC)
      WHERE NOT acknowledged AND NOT withdrawn`);
    await runner.query(`
      CREATE TABLE withdrawal (
        id uuid PRIMARY KEY,
        audience text COLLATE "C" NOT NULL,
        event_id text COLLATE "C" NOT NULL,
        notification_id uuid NOT NULL REFERENCES notification (id) ON DELETE CASCADE,
        message json NOT NULL
      )`);
    await runner.query(`CREATE INDEX withdrawal_event ON withdrawal (audience, event_id)`);
    await runner.query(`DROP TABLE inbox_update`);
  }
}
