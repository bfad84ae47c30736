import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What retention finds old rows by (docs/adr/0010-timelines-and-retention.md). */
export class Retention1800000410000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`CREATE INDEX notification_age ON notification (ordinal)`);
    await runner.query(`CREATE INDEX invitation_age ON invitation (cancelled)`);
    await runner.query(
      `CREATE INDEX community_member_departed ON community_member (ordinal) WHERE NOT present`,
    );
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`DROP INDEX notification_age, invitation_age, community_member_departed`);
  }
}
