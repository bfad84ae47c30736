import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Notifications, inboxes, communities. Ids compare byte by byte, whatever the locale. */
export class Notifier1800000000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    // The content is json, not jsonb: it goes out as it came in, and jsonb refuses \u0000.
    // Room is left in each page: every row is updated once soon after it is written, when it is emitted.
    await runner.query(`
      CREATE TABLE notification (
        id uuid PRIMARY KEY,
        audience text COLLATE "C" NOT NULL,
        event_id text COLLATE "C" NOT NULL,
        target text COLLATE "C" NOT NULL,
        category text NOT NULL,
        interactive boolean NOT NULL,
        content json NOT NULL,
        invited_to text COLLATE "C",
        read boolean NOT NULL DEFAULT false,
        acknowledged boolean NOT NULL DEFAULT false,
        withdrawn boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL,
        ordinal bigint NOT NULL,
        emitted_at timestamptz,
        CONSTRAINT notification_once UNIQUE (audience, event_id, target)
      ) WITH (fillfactor = 85)`);
    await runner.query(`
      CREATE INDEX notification_inbox ON notification (audience, target, ordinal DESC, id DESC)
      WHERE NOT acknowledged AND NOT withdrawn`);
    await runner.query(`
      CREATE INDEX notification_invite ON notification (audience, invited_to, target)
      WHERE invited_to IS NOT NULL AND NOT withdrawn`);
    await runner.query(`
      CREATE TABLE inbox (
        audience text COLLATE "C",
        user_id text COLLATE "C",
        version bigint NOT NULL,
        unread_count integer NOT NULL,
        PRIMARY KEY (audience, user_id)
      ) WITH (fillfactor = 70)`);
    await runner.query(`
      CREATE TABLE invitation (
        audience text COLLATE "C",
        community text COLLATE "C",
        target text COLLATE "C",
        cancelled bigint NOT NULL,
        cancelled_by text NOT NULL,
        PRIMARY KEY (audience, community, target)
      )`);
    await runner.query(`
      CREATE TABLE withdrawal (
        id uuid PRIMARY KEY,
        audience text COLLATE "C" NOT NULL,
        event_id text COLLATE "C" NOT NULL,
        notification_id uuid NOT NULL REFERENCES notification (id) ON DELETE CASCADE,
        message json NOT NULL
      )`);
    await runner.query(`CREATE INDEX withdrawal_event ON withdrawal (audience, event_id)`);
    await runner.query(`
      CREATE TABLE community (
        audience text COLLATE "C",
        id text COLLATE "C",
        managers text[],
        members_ordinal bigint,
        PRIMARY KEY (audience, id)
      )`);
    await runner.query(`
      CREATE TABLE community_member (
        audience text COLLATE "C",
        community text COLLATE "C",
        user_id text COLLATE "C",
        present boolean NOT NULL,
        ordinal bigint NOT NULL,
        PRIMARY KEY (audience, community, user_id)
      )`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE community_member, community, withdrawal, invitation, inbox, notification`);
  }
}
