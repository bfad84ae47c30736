import type { MigrationInterface, QueryRunner } from 'typeorm';

/** API tokens: of a secret only its hash. */
export class ApiToken1800000500000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE api_token (
        id uuid PRIMARY KEY,
        audience text COLLATE "C" NOT NULL,
        name text NOT NULL,
        scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
        hash bytea NOT NULL CHECK (octet_length(hash) = 32),
        created_by text,
        created_at timestamptz NOT NULL,
        last_used_at timestamptz,
        expires_at timestamptz,
        revoked_at timestamptz
      )`);
    await runner.query(`CREATE INDEX api_token_list ON api_token (audience, id) WHERE revoked_at IS NULL`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP TABLE api_token`);
  }
}
