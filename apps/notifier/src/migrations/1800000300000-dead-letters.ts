import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Dead letters, as they can be listed and redriven. `PH_DEAD` keeps them too, in the order in which they came. */
export class DeadLetters1800000300000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    // Times are nanoseconds since 1970, by the stream's clock: a consumer's own may be wrong.
    // Headers are json, not jsonb: jsonb refuses \u0000.
    await runner.query(`
      CREATE TABLE dead_letter (
        id uuid PRIMARY KEY,
        audience text COLLATE "C" NOT NULL,
        consumer text COLLATE "C" NOT NULL,
        code text COLLATE "C" NOT NULL,
        reason text NOT NULL,
        tries bigint NOT NULL,
        redrives bigint NOT NULL,
        subject text NOT NULL,
        topic text NOT NULL,
        event_id text NOT NULL,
        stream text NOT NULL,
        epoch text NOT NULL,
        sequence bigint NOT NULL,
        stored_at bigint NOT NULL,
        died_at bigint NOT NULL,
        headers json,
        payload bytea,
        waits_for text COLLATE "C",
        woken integer NOT NULL DEFAULT 0,
        state text COLLATE "C" NOT NULL
          CHECK (state IN ('waiting', 'redriving', 'redriven', 'deleted')),
        CONSTRAINT dead_letter_whole
          CHECK (state IN ('redriven', 'deleted') OR (headers IS NOT NULL AND payload IS NOT NULL))
      )`);
    await runner.query(`
      CREATE INDEX dead_letter_list ON dead_letter (audience, died_at, id) WHERE state = 'waiting'`);
    await runner.query(`
      CREATE INDEX dead_letter_redriving ON dead_letter (audience, died_at, id) WHERE state = 'redriving'`);
    await runner.query(`
      CREATE INDEX dead_letter_waits ON dead_letter (audience, waits_for)
      WHERE state = 'waiting' AND waits_for IS NOT NULL`);
    await runner.query(`CREATE INDEX dead_letter_age ON dead_letter (died_at)`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE dead_letter`);
  }
}
