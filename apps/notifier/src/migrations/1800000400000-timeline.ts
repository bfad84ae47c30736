import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Timelines: what happened, once, on whose timelines it stands, and how far each user has seen. */
export class Timeline1800000400000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    // The size in bytes decides how much of a page is read, before any content is.
    await runner.query(`
      CREATE TABLE activity (
        id uuid PRIMARY KEY,
        audience text COLLATE "C" NOT NULL,
        event_id text COLLATE "C" NOT NULL,
        ordinal bigint NOT NULL,
        size integer NOT NULL,
        content json NOT NULL,
        CONSTRAINT activity_once UNIQUE (audience, event_id)
      )`);
    await runner.query(`CREATE INDEX activity_age ON activity (ordinal)`);
    await runner.query(`
      CREATE TABLE timeline_entry (
        activity_id uuid NOT NULL REFERENCES activity (id),
        target text COLLATE "C" NOT NULL,
        audience text COLLATE "C" NOT NULL,
        ordinal bigint NOT NULL,
        PRIMARY KEY (activity_id, target)
      )`);
    await runner.query(`
      CREATE INDEX timeline_page ON timeline_entry (audience, target, ordinal DESC, activity_id DESC)`);
    await runner.query(`
      CREATE TABLE timeline_seen (
        audience text COLLATE "C",
        user_id text COLLATE "C",
        target text COLLATE "C",
        ordinal bigint NOT NULL,
        activity_id uuid NOT NULL,
        PRIMARY KEY (audience, user_id, target)
      )`);
    await runner.query(`CREATE INDEX timeline_seen_age ON timeline_seen (ordinal)`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE timeline_seen, timeline_entry, activity`);
  }
}
