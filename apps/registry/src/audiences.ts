import { Injectable } from '@nestjs/common';
import {
  type AudienceRecord,
  audienceKey,
  type CreateAudienceReply,
  checkName,
  ProblemError,
} from '@posthorn/contracts';
import { DataSource, type EntityManager } from 'typeorm';
import { Audience } from './entities.js';
import { Projection } from './projection.js';
import { audienceRecord } from './records.js';

/** The tenants. */
@Injectable()
export class Audiences {
  constructor(
    private readonly source: DataSource,
    private readonly projection: Projection,
  ) {}

  /**
   * Creates an audience, or finds the one of that name. Of several that ask at once, one is told `created`.
   * @throws ProblemError `request_invalid` for a name that cannot be one
   */
  async create(name: string): Promise<CreateAudienceReply> {
    checkAudience(name);
    const audiences = this.source.getRepository(Audience);
    const inserted = await audiences
      .createQueryBuilder()
      .insert()
      .values({ name })
      .orIgnore()
      .returning('id')
      .execute();
    const record = audienceRecord(await audiences.findOneByOrFail({ name }));
    const created = inserted.raw.length > 0;
    if (created) await this.projection.put(audienceKey(name), record);
    return { created, audience: record };
  }

  /** The audience of that name, or null. */
  async find(name: string): Promise<AudienceRecord | null> {
    checkAudience(name);
    const audience = await this.source.getRepository(Audience).findOneBy({ name });
    return audience && audienceRecord(audience);
  }
}

/**
 * The audience of that name.
 * @throws ProblemError `audience_not_found`
 */
export async function audienceOf(manager: EntityManager, name: string): Promise<Audience> {
  checkAudience(name);
  const audience = await manager.findOneBy(Audience, { name });
  if (!audience) throw new ProblemError('audience_not_found', 'Create the audience first: POST /v1/audience');
  return audience;
}

function checkAudience(name: string): void {
  checkName('audience', name);
  // PostgreSQL keeps no text with this character.
  if (name.includes('\0')) throw new ProblemError('request_invalid', 'audience holds a null character');
}
