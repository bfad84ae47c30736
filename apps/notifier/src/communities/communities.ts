import {
  type Finding,
  findId,
  type ListMembersReply,
  type ListMembersRequest,
  MEMBERS_PAGE,
  ProblemError,
  type SetCommunityReply,
  type SetCommunityRequest,
} from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import type { DataSource } from 'typeorm';
import { ID_BYTES } from '../worker/notice.js';
import { Community } from './entities.js';
import { replaceMemberList } from './member-lists.js';

export interface CommunitiesOptions {
  readonly source: DataSource;
  /** The time of the last event in the stream, in nanoseconds since 1970, by the stream's own clock. */
  readonly lastEvent: () => Promise<bigint>;
  readonly managersSet: () => void;
}

/** Who manages, and who belongs to, a community. */
export class Communities {
  readonly #options: CommunitiesOptions;

  constructor(options: CommunitiesOptions) {
    this.#options = options;
  }

  /** Replaces the managers. An empty list says that there are none, which is not the same as unknown. */
  async setManagers(request: SetCommunityRequest): Promise<SetCommunityReply> {
    const { audience, community, users } = checked(request);
    const repository = this.#options.source.getRepository(Community);
    await repository.upsert({ audience, id: community, managers: users }, ['audience', 'id']);
    this.#options.managersSet();
    return { community, users };
  }

  /**
   * Replaces the members. Joins and leaves that are in the stream already, and may still be on their way here,
   * no longer count; later ones do.
   */
  async setMembers(request: SetCommunityRequest): Promise<SetCommunityReply> {
    const { audience, community, users } = checked(request);
    const asked = (await this.#options.lastEvent()) + 1n;
    await withTransaction(this.#options.source, async (tx) => {
      // Of two lists set at once, one is the result.
      await replaceMemberList(tx, { audience, community });
      const [{ ordinal }]: [{ ordinal: string }] = await tx.query(
        `INSERT INTO community AS c (audience, id, members_ordinal) VALUES ($1, $2, $3)
         ON CONFLICT (audience, id) DO UPDATE
           SET members_ordinal = GREATEST(c.members_ordinal, excluded.members_ordinal)
         RETURNING members_ordinal AS ordinal`,
        [audience, community, String(asked)],
      );
      await tx.query(
        `DELETE FROM community_member
         WHERE audience = $1 AND community = $2 AND ordinal <= $3 AND user_id <> ALL ($4::text[])`,
        [audience, community, ordinal, users],
      );
      await tx.query(
        `INSERT INTO community_member AS m (audience, community, user_id, present, ordinal)
         SELECT $1::text, $2::text, u, true, $3::bigint FROM unnest($4::text[]) AS u ORDER BY u
         ON CONFLICT (audience, community, user_id) DO UPDATE SET present = true, ordinal = excluded.ordinal
           WHERE m.ordinal <= excluded.ordinal`,
        [audience, community, ordinal, users],
      );
    });
    return { community, users };
  }

  /** A page of the members, sorted. */
  async members({ audience, community, after = '' }: ListMembersRequest): Promise<ListMembersReply> {
    const rows: { user_id: string }[] = await this.#options.source.query(
      `SELECT m.user_id
       FROM community_member m LEFT JOIN community c ON c.audience = m.audience AND c.id = m.community
       WHERE m.audience = $1 AND m.community = $2 AND m.user_id > $3 AND m.present
         AND m.ordinal >= COALESCE(c.members_ordinal, 0)
       ORDER BY m.user_id
       LIMIT $4`,
      [audience, community, after, MEMBERS_PAGE],
    );
    return rows.map(({ user_id }) => user_id);
  }
}

/** Ids as they are compared everywhere, each once. */
function checked(request: SetCommunityRequest): SetCommunityRequest {
  const errors: Finding[] = [];
  const check = (id: string, path: string) => {
    if (findId(id) === undefined) errors.push({ path, message: 'must be an id' });
    else if (Buffer.byteLength(id) > ID_BYTES) {
      errors.push({ path, message: `must not be longer than ${ID_BYTES} bytes` });
    }
  };
  check(request.audience, '/audience');
  check(request.community, '/community');
  request.users.forEach((user, i) => {
    check(user, `/users/${i}`);
  });
  if (errors.length > 0) {
    throw new ProblemError('request_invalid', 'The request holds what is no id', {
      errors: errors.slice(0, 20),
    });
  }
  return { ...request, users: [...new Set(request.users)] };
}
