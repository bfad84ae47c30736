import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Revocations, one for each token, user or audience. Names compare byte by byte, whatever the locale. */
export class Revocation1800000000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE revocation (
        audience text COLLATE "C" NOT NULL,
        kind text NOT NULL CHECK (kind IN ('token', 'user', 'audience')),
        name text COLLATE "C" NOT NULL,
        issued_before bigint,
        revoked_at timestamptz NOT NULL,
        PRIMARY KEY (audience, kind, name),
        CONSTRAINT revocation_name CHECK ((kind = 'audience') = (name = '')),
        CONSTRAINT revocation_issued_before CHECK ((kind = 'token') = (issued_before IS NULL))
      )`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE revocation`);
  }
}
