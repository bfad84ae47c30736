/** Who manages and belongs to a community (docs/protocols/esn.md, "Notification worker"). */
import { Body, Controller, Param, Put, UseGuards } from '@nestjs/common';
import {
  assertPrivileged,
  COMMUNITY_CALLS,
  type Finding,
  findId,
  type Principal,
  ProblemError,
  type SetCommunityReply,
  type SetCommunityRequest,
} from '@posthorn/contracts';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard } from '../../http/caller.js';

/** Setting writes up to 10,000 rows, and waits for joins and leaves that are being written, in milliseconds. */
const SET_TIMEOUT = 10_000;

@Controller('v1/communities')
@UseGuards(CallerGuard)
export class CommunitiesController {
  constructor(private readonly core: GatewayCore) {}

  @Put(':id/managers')
  async setManagers(
    @Caller() principal: Principal,
    @Param('id') community: string,
    @Body() body: unknown,
  ): Promise<{ community: string; managers: readonly string[] }> {
    const users = await this.#set(COMMUNITY_CALLS.setManagers, principal, community, body, 'managers');
    return { community, managers: users };
  }

  @Put(':id/members')
  async setMembers(
    @Caller() principal: Principal,
    @Param('id') community: string,
    @Body() body: unknown,
  ): Promise<{ community: string; members: readonly string[] }> {
    const users = await this.#set(COMMUNITY_CALLS.setMembers, principal, community, body, 'members');
    return { community, members: users };
  }

  async #set(
    call: string,
    principal: Principal,
    community: string,
    body: unknown,
    field: 'managers' | 'members',
  ): Promise<readonly string[]> {
    assertPrivileged(principal, `setting ${field}`);
    const users = idsOf(objectBody(body)[field], field);
    const reply = await this.core.rpc.call<SetCommunityRequest, SetCommunityReply>(
      call,
      { audience: principal.audience, community, users },
      { timeoutMs: SET_TIMEOUT },
    );
    return reply.users;
  }
}

function idsOf(value: unknown, field: string): string[] {
  if (!Array.isArray(value)) {
    throw new ProblemError('request_invalid', `${field} must be a list of ids`, {
      errors: [{ path: `/${field}`, message: 'must be a list of ids' }],
    });
  }
  const errors: Finding[] = [];
  const ids = value.map((item, i) => {
    const id = findId(item);
    if (!id) errors.push({ path: `/${field}/${i}`, message: 'must be an id' });
    return id ?? '';
  });
  if (errors.length > 0) {
    throw new ProblemError('request_invalid', `${field} must be a list of ids`, {
      errors: errors.slice(0, 20),
    });
  }
  return [...new Set(ids)];
}
