import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What each process has taken in for each audience on each day. */
export class Usage1800000100000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE usage (
        audience_id uuid NOT NULL REFERENCES audience (id) ON DELETE CASCADE,
        day date NOT NULL,
        process uuid NOT NULL,
        publishes bigint NOT NULL,
        bytes bigint NOT NULL,
        PRIMARY KEY (audience_id, day, process)
      )`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE usage`);
  }
}
