import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Audiences, topics, generations of streams. Names and paths compare byte by byte, whatever the locale. */
export class Registry1800000000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE audience (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        name text COLLATE "C" NOT NULL CONSTRAINT audience_name UNIQUE,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
      )`);
    // The schema is json, not jsonb: it goes out as it came in, and jsonb refuses \u0000.
    // clock_timestamp(): topics of one audience are created one at a time, and that order is the list's.
    await runner.query(`
      CREATE TABLE topic (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        audience_id uuid NOT NULL REFERENCES audience (id) ON DELETE CASCADE,
        name text COLLATE "C" NOT NULL,
        path text COLLATE "C" NOT NULL,
        schema json,
        retention integer,
        durable boolean NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT topic_path UNIQUE (audience_id, path)
      )`);
    await runner.query(`CREATE INDEX topic_order ON topic (audience_id, created_at, id)`);
    await runner.query(`
      CREATE TABLE stream (
        stream text PRIMARY KEY,
        created text NOT NULL,
        generation integer NOT NULL,
        highest_sequence bigint NOT NULL,
        highest_time text
      )`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE stream, topic, audience`);
  }
}
